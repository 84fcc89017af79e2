"""DINO with UniRepLKNet-T on COCO, four levels, 12 epochs, ImageNet-1K weights.

The paper does not have it, and it was not trained here. Layer decay is that of T's published
detector, drop path that of its segmenter, which is trained for a similar time.

    bash tools/dist_train.sh configs/det/dino_unireplknet_t_12e.py 8
"""

_base_ = [
    '../_base_/models/dino.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/detr_12e.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        arch='t',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_t_in1k'),
    ),
    neck=dict(in_channels=[160, 320, 640]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
