"""12 epochs ("1x"), the learning rate cut tenfold after epochs 8 and 11; else as `coco_3x`."""

_base_ = './coco_3x.py'

param_scheduler = [
    _base_.param_scheduler[0],
    dict(type='MultiStepLR', by_epoch=True, begin=0, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(max_epochs=12)
