"""Cascade Mask R-CNN with UniRepLKNet-S on COCO, 36 epochs, ImageNet-22K weights (paper, Table 6).

Paper: box AP 54.3, mask AP 47.1; 113 M parameters and 835 GFLOPs at 1280x800. Not reproduced here.
The published config leaves the weight file open; this is the one of published segmentation configs.

    bash tools/dist_train.sh configs/det/cascade_unireplknet_s_in22k_3x.py 8
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_3x_ema.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        arch='s',
        drop_path_rate=0.5,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_s_in22k_to_in1k'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
