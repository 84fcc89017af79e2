"""As unireplknet_etth1_96_96.py, 336 hours in: a map of 14 days by 24 hours, and averaged weights.

Not in the paper; what was measured here is in docs/time_series.md.

python tools/train.py configs/time_series/unireplknet_etth1_336_96.py
"""

_base_ = './unireplknet_etth1_96_96.py'

look_back = 336
input_shape = (look_back, 7)
# Chosen on the validation part at 336 hours out, of what docs/time_series.md lists.
model = dict(look_back=look_back, embedding=dict(channels=1, map_size=(14, 24)))
custom_hooks = [dict(type='EMAHook', momentum=1e-2, update_buffers=True, priority='ABOVE_NORMAL')]
train_dataloader = dict(dataset=dict(look_back=look_back))
val_dataloader = dict(dataset=dict(look_back=look_back))
test_dataloader = dict(dataset=dict(look_back=look_back))
