"""AST's schedule on ESC-50 from ImageNet weights: Adam, 25 epochs, the rate falling from epoch 5 on."""

_base_ = './audio_100e.py'

optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type='MultiStepLR', milestones=list(range(5, 25)), gamma=0.85, by_epoch=True),
]
train_cfg = dict(max_epochs=25)
auto_scale_lr = dict(base_batch_size=48)
