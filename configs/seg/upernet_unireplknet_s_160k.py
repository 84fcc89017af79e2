"""UPerNet with UniRepLKNet-S on ADE20K, 512 crops, ImageNet-1K weights (paper, Table 7).

Paper: mIoU 50.5 single-scale, 51.0 multi-scale; 86 M parameters and 1036 GFLOPs at 512x2048.
Not reproduced here.
With ImageNet-22K weights: `upernet_unireplknet_s_in22k_160k.py`.

    bash tools/dist_train.sh configs/seg/upernet_unireplknet_s_160k.py 8
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
        arch='s',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_s_in1k'),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.9))
