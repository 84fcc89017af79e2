"""UPerNet with UniRepLKNet-N on ADE20K, 512 crops, ImageNet-1K weights.

The paper does not have it, and it was not trained here. Drop path is that of ImageNet, layer decay
that of T's published segmenter.

    bash tools/dist_train.sh configs/seg/upernet_unireplknet_n_160k.py 8
"""

_base_ = './upernet_unireplknet_a_160k.py'

model = dict(
    backbone=dict(
        arch='n',
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='unireplknet_n_in1k'),
    ),
    decode_head=dict(in_channels=[80, 160, 320, 640]),
    auxiliary_head=dict(in_channels=320),
)
