"""Cascade Mask R-CNN with UniRepLKNet-XL on COCO, 36 epochs, ImageNet-22K weights (paper, Table 6).

Paper: box AP 56.4, mask AP 49.0; 443 M parameters and 1952 GFLOPs at 1280x800. Not reproduced here.
The published config leaves the weight file open; this is the one of published segmentation configs.

    bash tools/dist_train.sh configs/det/cascade_unireplknet_xl_3x.py 8
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_3x_ema.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        arch='xl',
        drop_path_rate=0.7,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_xl_in22k_to_in1k'),
    ),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.7))
