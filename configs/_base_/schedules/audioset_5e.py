"""AST's schedule on AudioSet-2M from ImageNet weights: Adam, 5 epochs, the rate halved from epoch 2 on."""

_base_ = './audio_100e.py'

optim_wrapper = dict(optimizer=dict(lr=1e-5))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', milestones=[2, 3, 4], gamma=0.5, by_epoch=True),
]
train_cfg = dict(max_epochs=5)
auto_scale_lr = dict(base_batch_size=12)
