"""`classifier` for ImageNet-22K: 21,841 classes, mixup and cutmix of every pre-trained model (Table 17)."""

_base_ = './classifier.py'

model = dict(
    head=dict(num_classes=21841),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
