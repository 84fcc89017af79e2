"""Mask2Former with UniRepLKNet-T on COCO instances, 50 epochs, ImageNet-1K weights.

The paper does not have it, and it was not trained here. Drop path and layer decay are those of T's
published detector.

    bash tools/dist_train.sh configs/det/mask2former_unireplknet_t_50e.py 8
"""

_base_ = [
    '../_base_/models/mask2former.py',
    '../_base_/datasets/coco_instance_lsj.py',
    '../_base_/schedules/mask2former_50e.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        arch='t',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_t_in1k'),
    ),
    panoptic_head=dict(in_channels=[80, 160, 320, 640]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
