"""The Kinetics recipe on 4 frames of 32 pixels, with a backbone that trains on a CPU in seconds."""

_base_ = '../../../configs/video/unireplknet_s_k400.py'

arch = dict(_delete_=True, depths=(1, 1, 3, 1), channels=(8, 16, 24, 32), kernel_sizes=(3, 7, 7, 7))
input_shape = (4, 3, 32, 32)
model = dict(embedding=dict(num_frames=4), backbone=dict(arch=arch), head=dict(in_channels=32))

train, val, test = _base_.train_pipeline, _base_.val_pipeline, _base_.test_pipeline
for pipeline in (train, val, test):
    pipeline[0].num_frames = 4
train[1].transforms[1].scale = 32
val[1].transforms[0].scale = val[1].transforms[1].crop_size = 32
test[1].transforms[0].scale = test[2].size = 32
train_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(pipeline=train))
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(pipeline=val)
)
test_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(pipeline=test)
)
