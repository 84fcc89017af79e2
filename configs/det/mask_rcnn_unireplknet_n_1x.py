"""Mask R-CNN with UniRepLKNet-N on COCO, 12 epochs, ImageNet-1K weights.

The paper does not have it, and it was not trained here. As from ImageNet to T's and S's published
detectors, drop path rises by 0.1; learning rates decay by 0.9 a layer, since the network is
shallow.

    bash tools/dist_train.sh configs/det/mask_rcnn_unireplknet_n_1x.py 8
"""

_base_ = './mask_rcnn_unireplknet_a_1x.py'

model = dict(
    backbone=dict(
        arch='n',
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='unireplknet_n_in1k'),
    ),
    neck=dict(in_channels=[80, 160, 320, 640]),
)
