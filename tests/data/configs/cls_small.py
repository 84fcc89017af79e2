"""The ImageNet recipe on 32-pixel crops, with a backbone that trains on a CPU in seconds."""

_base_ = '../../../configs/cls/unireplknet_t_in1k.py'

arch = dict(_delete_=True, depths=(1, 1, 3, 1), channels=(8, 16, 24, 32), kernel_sizes=(3, 7, 7, 7))
model = dict(backbone=dict(arch=arch), head=dict(in_channels=32))

_base_.train_pipeline[1].scale = 32
train_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
