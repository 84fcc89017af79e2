"""Cascade Mask R-CNN with UniRepLKNet-P on COCO, 36 epochs, ImageNet-1K weights.

The paper does not have it, and it was not trained here. As from ImageNet to T's and S's published
detectors, drop path rises by 0.1; learning rates decay by 0.9 a layer, since the network is
shallow.

    bash tools/dist_train.sh configs/det/cascade_unireplknet_p_3x.py 8
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_3x.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        arch='p',
        drop_path_rate=0.2,
        with_cp=False,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_p_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.9))
