"""The ADE20K recipe on 64-pixel crops, with a backbone and a head that train on a CPU in seconds."""

_base_ = '../../../configs/seg/upernet_unireplknet_t_160k.py'

classes = 11  # those of the demo data: 150 logits of every pixel take most of a test's time
arch = dict(_delete_=True, depths=(1, 1, 3, 1), channels=(8, 16, 24, 32), kernel_sizes=(3, 7, 7, 7))
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(arch=arch, init_cfg=None),
    decode_head=dict(in_channels=[8, 16, 24, 32], channels=16, num_classes=classes),
    auxiliary_head=dict(in_channels=24, channels=16, num_classes=classes),
)

_base_.train_pipeline[2].scale = (256, 64)
_base_.train_pipeline[3].crop_size = (64, 64)
_base_.test_pipeline[1].scale = (256, 64)
_base_.tta_pipeline[1].transforms[0] = _base_.tta_pipeline[1].transforms[0][:2]
for resize in _base_.tta_pipeline[1].transforms[0]:
    resize.scale = (256, 64)
train_dataloader = dict(num_workers=2, dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=_base_.test_pipeline)
)
test_dataloader = val_dataloader
tta_pipeline = _base_.tta_pipeline
