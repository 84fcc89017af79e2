"""`in22k_to_in1k` for the large models: 20 epochs and a moving average of the weights (Table 17).

The published commands average with a decay of 0.9999 and evaluate the average too.
"""

_base_ = './in22k_to_in1k.py'

train_cfg = dict(max_epochs=20)
custom_hooks = [dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL')]
