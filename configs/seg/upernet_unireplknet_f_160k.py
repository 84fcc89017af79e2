"""UPerNet with UniRepLKNet-F on ADE20K, 512 crops, ImageNet-1K weights.

The paper does not have it, and it was not trained here. Drop path is that of ImageNet, layer decay
that of T's published segmenter.

    bash tools/dist_train.sh configs/seg/upernet_unireplknet_f_160k.py 8
"""

_base_ = './upernet_unireplknet_a_160k.py'

model = dict(
    backbone=dict(
        arch='f',
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='unireplknet_f_in1k'),
    ),
    decode_head=dict(in_channels=[48, 96, 192, 384]),
    auxiliary_head=dict(in_channels=192),
)
