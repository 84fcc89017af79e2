"""ImageNet-22K at 192, for the pre-training of the large models (Table 17)."""

_base_ = './imagenet22k_224.py'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=192, backend='pillow', interpolation='bicubic'),
    *_base_.train_pipeline[2:],
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
