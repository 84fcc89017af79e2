"""Cascade Mask R-CNN with UniRepLKNet-F on COCO, 36 epochs, ImageNet-1K weights.

The paper does not have it, and it was not trained here. As from ImageNet to T's and S's published
detectors, drop path rises by 0.1; learning rates decay by 0.9 a layer, since the network is
shallow.

    bash tools/dist_train.sh configs/det/cascade_unireplknet_f_3x.py 8
"""

_base_ = './cascade_unireplknet_a_3x.py'

model = dict(
    backbone=dict(
        arch='f',
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='unireplknet_f_in1k'),
    ),
    neck=dict(in_channels=[48, 96, 192, 384]),
)
