"""Kinetics-400 at 224, 16 frames four apart: random crops, RandAugment m7-n4 and random erasing, each alike
in all frames of a clip; every video twice in a batch; tested on 5 clips × 3 crops (§4.2 and its code).

The code lists color jitter 0.4 beside RandAugment, and drops it where there is an Auto-augment policy, as
timm does. It erases another place in every frame; here it is the same in all.
"""

dataset_type = 'VideoList'
data_root = 'data/kinetics400'
data_preprocessor = dict(
    type='ClipPreprocessor',
    num_classes=400,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
bgr_mean = data_preprocessor['mean'][::-1]
bgr_std = data_preprocessor['std'][::-1]

num_frames = 16
stride = 4
repeats = 2

train_pipeline = [
    dict(type='LoadVideo', num_frames=num_frames, stride=stride, random=True),
    dict(
        type='EachFrame',
        transforms=[
            # timm's rand-m7-n4-mstd0.5-inc1
            dict(
                type='RandAugment',
                policies='timm_increasing',
                num_policies=4,
                total_level=10,
                magnitude_level=7,
                magnitude_std=0.5,
                hparams=dict(pad_val=[round(value) for value in bgr_mean], interpolation='bicubic'),
            ),
            dict(type='RandomResizedCrop', scale=224, interpolation='bicubic'),
            # Of data sets whose classes are directions, leave this out.
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(
                type='RandomErasing',
                erase_prob=0.25,
                mode='rand',
                min_area_ratio=0.02,
                max_area_ratio=1 / 3,
                fill_color=bgr_mean,
                fill_std=bgr_std,
            ),
        ],
    ),
    dict(type='PackClips'),
]
val_pipeline = [
    dict(type='LoadVideo', num_frames=num_frames, stride=stride),
    dict(
        type='EachFrame',
        transforms=[
            dict(type='ResizeEdge', scale=224, edge='short'),
            dict(type='CenterCrop', crop_size=224),
        ],
    ),
    dict(type='PackClips'),
]
test_pipeline = [
    dict(type='LoadVideo', num_frames=num_frames, stride=stride, num_clips=5),
    dict(type='EachFrame', transforms=[dict(type='ResizeEdge', scale=224, edge='short')]),
    dict(type='SpatialCrops', size=224, num_crops=3),
    dict(type='PackClips'),
]

train_dataloader = dict(
    batch_size=8,  # 4 videos
    num_workers=10,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='RepeatedSampler', num_repeats=repeats),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='train.txt',
        data_prefix='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=10,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='val.txt',
        data_prefix='val',
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=4,
    num_workers=10,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='val.txt',
        data_prefix='val',
        pipeline=test_pipeline,
        test_mode=True,
    ),
)

val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
