"""Cascade Mask R-CNN with UniRepLKNet-T on COCO, 36 epochs, ImageNet-1K weights (paper, Table 6).

Paper: box AP 51.8, mask AP 44.9; 89 M parameters and 749 GFLOPs at 1280x800. Not reproduced here.

    bash tools/dist_train.sh configs/det/cascade_unireplknet_t_3x.py 8
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_3x.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        arch='t',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_t_in1k'),
    ),
    neck=dict(in_channels=[80, 160, 320, 640]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
