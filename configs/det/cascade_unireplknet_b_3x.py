"""Cascade Mask R-CNN with UniRepLKNet-B on COCO, 36 epochs, ImageNet-22K weights (paper, Table 6).

Paper: box AP 54.8, mask AP 47.4; 155 M parameters and 978 GFLOPs at 1280x800. Not reproduced here.
The published config leaves the weight file open; this is the one of published segmentation configs.

    bash tools/dist_train.sh configs/det/cascade_unireplknet_b_3x.py 8
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_3x_ema.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        arch='b',
        drop_path_rate=0.6,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_b_in22k_to_in1k'),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
