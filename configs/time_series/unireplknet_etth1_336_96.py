"""As unireplknet_etth1_96_96.py, 336 hours in.

Not in the paper; what was measured here is in docs/time_series.md.

python tools/train.py configs/time_series/unireplknet_etth1_336_96.py
"""

_base_ = './unireplknet_etth1_96_96.py'

look_back = 336
input_shape = (look_back, 7)
model = dict(look_back=look_back)
train_dataloader = dict(dataset=dict(look_back=look_back))
val_dataloader = dict(dataset=dict(look_back=look_back))
test_dataloader = dict(dataset=dict(look_back=look_back))
