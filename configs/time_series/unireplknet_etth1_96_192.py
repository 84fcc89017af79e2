"""As unireplknet_etth1_96_96.py, 192 hours out.

Not in the paper; what was measured here is in docs/time_series.md.

python tools/train.py configs/time_series/unireplknet_etth1_96_192.py
"""

_base_ = './unireplknet_etth1_96_96.py'

horizon = 192
model = dict(horizon=horizon)
train_dataloader = dict(dataset=dict(horizon=horizon))
val_dataloader = dict(dataset=dict(horizon=horizon))
test_dataloader = dict(dataset=dict(horizon=horizon))
