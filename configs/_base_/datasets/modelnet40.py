"""ModelNet-40 (`.dat` release), 4,096 points, in the pipeline of the published code.

It trains on clouds turned at random and tests on eight turns of each, whose scores are averaged here.

In training 4,096 points are drawn of the first 4,800 that farthest-point sampling took; the file has them
in that order, so they are not sampled again. The code draws them of the whole batch, here of each cloud.
"""

data_root = 'data/modelnet40'
num_points = 4096
data_preprocessor = dict(num_classes=40)

train_pipeline = [
    dict(type='LoadPointCloud', random=True),
    dict(type='SamplePoints', count=num_points, candidates=4800, method='first'),
    dict(type='UnitSphere'),
    dict(type='RandomTurn', turn=(7.2, 349.2), tilt=(-72, -36)),
    dict(type='RandomScale', low=2 / 3, high=3 / 2),
    dict(type='RandomShift', largest=0.2),
    dict(type='PackPoints'),
]
val_pipeline = [
    dict(type='LoadPointCloud'),
    dict(type='SamplePoints', count=num_points, method='first'),
    dict(type='UnitSphere'),
    dict(type='TurnedViews', turns=(18,), tilt=-63),
    dict(type='PackPoints'),
]
test_pipeline = [
    dict(type='LoadPointCloud'),
    dict(type='SamplePoints', count=num_points, method='first'),
    dict(type='UnitSphere'),
    dict(type='TurnedViews', tilt=-63),
    dict(type='PackPoints'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ModelNet', data_root=data_root, subset='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ModelNet', data_root=data_root, subset='test', pipeline=val_pipeline, test_mode=True
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ModelNet', data_root=data_root, subset='test', pipeline=test_pipeline, test_mode=True
    ),
)
val_evaluator = dict(type='OverallAndMeanAccuracy')
test_evaluator = val_evaluator
