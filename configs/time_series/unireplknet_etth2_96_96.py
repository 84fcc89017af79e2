"""As unireplknet_etth1_96_96.py, of the second station: ETTh2.

Not in the paper; not trained here.

python tools/train.py configs/time_series/unireplknet_etth2_96_96.py
"""

_base_ = './unireplknet_etth1_96_96.py'

file = dict(ann_file='ETTh2.csv')
train_dataloader = dict(dataset=file)
val_dataloader = dict(dataset=file)
test_dataloader = dict(dataset=file)
