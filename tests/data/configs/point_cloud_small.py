"""The ScanObjectNN recipe on 64 points and maps of 32 pixels, with a backbone that trains in seconds."""

_base_ = '../../../configs/point_cloud/unireplknet_s_scanobjectnn.py'

arch = dict(_delete_=True, depths=(1, 1, 3, 1), channels=(8, 16, 24, 32), kernel_sizes=(3, 7, 7, 7))
input_shape = (64, 3)
model = dict(
    embedding=dict(size=32, num_neighbours=8, channels=8, reduce='softmax'),
    backbone=dict(arch=arch),
    head=dict(in_channels=32),
)

train, val, test = _base_.train_pipeline, _base_.val_pipeline, _base_.test_pipeline
for pipeline in (train, val, test):
    pipeline[1].count = 64
val[1].method = test[1].method = 'farthest'
train.insert(5, dict(type='RandomJitter'))
train.insert(6, dict(type='RandomPointDropout'))
train_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(pipeline=train))
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(pipeline=val)
)
test_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(pipeline=test)
)
