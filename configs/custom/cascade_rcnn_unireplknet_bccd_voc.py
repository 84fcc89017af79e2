"""An example of one's own detection data: Cascade R-CNN on boxes in Pascal VOC's format, no masks.

The data are photographs of blood cells, https://github.com/Shenggan/BCCD_Dataset (MIT), as

    data/bccd/ImageSets/Main/{train,val}.txt    one NAME a line
    data/bccd/Annotations/NAME.xml
    data/bccd/JPEGImages/NAME.jpg

The model is the small one of the demo, trained from scratch, without its mask head. Measured on 205
images for training and 87 for validation: AP50 0.858, AP[.5:.95] 0.508, the same re-parameterized,
after 11 minutes of CPU time (2 cores of an AMD EPYC, torch 2.11). docs/custom_data.md has the rest.

    python tools/train.py configs/custom/cascade_rcnn_unireplknet_bccd_voc.py
"""

_base_ = '../demo/cascade_unireplknet_demo.py'

classes = ('RBC', 'WBC', 'Platelets')
metainfo = dict(classes=classes, palette=[(220, 20, 60), (60, 90, 220), (240, 180, 40)])
data_root = 'data/bccd/'
image_size = (320, 240)  # width, height; the photographs are 640x480
max_epochs = 10

model = dict(
    roi_head=dict(
        bbox_head=[
            dict(head, num_classes=len(classes)) for head in _base_.model.roi_head.bbox_head
        ],
        mask_roi_extractor=None,
        mask_head=None,
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomChoiceResize', scales=[(256, 192), (320, 240), (384, 288)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
dataset = dict(
    _delete_=True,
    type='XMLDataset',
    data_root=data_root,
    data_prefix=dict(sub_data_root=''),
    metainfo=metainfo,
)
train_dataloader = dict(
    dataset=dict(
        dataset,
        ann_file='ImageSets/Main/train.txt',
        filter_cfg=dict(filter_empty_gt=True, bbox_min_size=2),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        dataset, ann_file='ImageSets/Main/val.txt', test_mode=True, pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    _delete_=True,
    type='VOCMetric',
    iou_thrs=[0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],
    eval_mode='area',
)
test_evaluator = val_evaluator

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        T_max=max_epochs,
        end=max_epochs,
        eta_min=2e-5,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=2)
default_hooks = dict(checkpoint=dict(save_best='pascal_voc/mAP'))
