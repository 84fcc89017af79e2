"""Eighteen classes of point clouds, ten digits as plates and eight solids, by projection onto three planes.

A stand-in for a data set of point clouds, trained from scratch on a CPU within minutes: generated shapes,
real handwriting, clouds of 256 points. `solids_pointnet_demo.py` trains PointNet in the same way; the files
beside them that are named `rotated` train and test with a random rotation of every cloud. What they
reach: docs/point_cloud.md.

    python tools/make_demo_data.py point_cloud_folder --out data/demo/solids --images 1440 --val-images 720
    python tools/train.py configs/demo/solids_unireplknet_demo.py
"""

_base_ = ['../_base_/models/point_cloud_classifier.py', '../_base_/point_cloud_runtime.py']

data_root = 'data/demo/solids'
num_points = 256
num_classes = 18
batch_size = 32
max_epochs = 8

input_shape = (num_points, 3)
data_preprocessor = dict(num_classes=num_classes)
model = dict(
    embedding=dict(size=48, num_neighbours=8, channels=8),
    backbone=dict(
        arch=dict(depths=(1, 1, 2, 1), channels=(16, 32, 64, 128)),
        layer_scale_init_value=0.1,
        drop_path_rate=0.1,
    ),
    head=dict(num_classes=num_classes, in_channels=128),
)

train_pipeline = [
    dict(type='LoadPointCloud', random=True),
    dict(type='SamplePoints', count=num_points, method='random'),
    dict(type='UnitSphere'),
    dict(type='RandomScale'),
    dict(type='RandomShift'),
    dict(type='RandomJitter'),
    dict(type='PackPoints'),
]
test_pipeline = [
    dict(type='LoadPointCloud'),
    dict(type='SamplePoints', count=num_points, method='first'),  # a file's points have no order
    dict(type='UnitSphere'),
    dict(type='PackPoints'),
]
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='PointCloudFolder', data_root=data_root, data_prefix='train', pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='PointCloudFolder',
        data_root=data_root,
        data_prefix='val',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='OverallAndMeanAccuracy')
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=5),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=2e-5, by_epoch=True, begin=1, convert_to_iter_based=True
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=4)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=batch_size)
