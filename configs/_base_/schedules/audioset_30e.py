"""For AudioSet-2M from random weights: Adam, 30 epochs, the rate halved every five epochs from epoch 10 on.

None was published; AST starts from ImageNet weights. The rate is that of Table 8's recipe for Speech
Commands, for batches of 128.
"""

_base_ = './audio_100e.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', milestones=[10, 15, 20, 25], gamma=0.5, by_epoch=True),
]
train_cfg = dict(max_epochs=30)
