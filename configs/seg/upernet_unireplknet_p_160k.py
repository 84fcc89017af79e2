"""UPerNet with UniRepLKNet-P on ADE20K, 512 crops, ImageNet-1K weights.

The paper does not have it, and it was not trained here. Drop path is that of ImageNet, layer decay
that of T's published segmenter.

    bash tools/dist_train.sh configs/seg/upernet_unireplknet_p_160k.py 8
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/ade20k_160k.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        arch='p',
        drop_path_rate=0.1,
        with_cp=False,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_p_in1k'),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=1.0))
