"""As unireplknet_etth1_96_96.py, every quarter of an hour: ETTm1, the same months.

Not in the paper; not trained here.

python tools/train.py configs/time_series/unireplknet_ettm1_96_96.py
"""

_base_ = './unireplknet_etth1_96_96.py'

month = 30 * 24 * 4
file = dict(ann_file='ETTm1.csv', parts=(12 * month, 4 * month, 4 * month))
train_dataloader = dict(dataset=file)
val_dataloader = dict(dataset=file)
test_dataloader = dict(dataset=file)
