"""UPerNet with UniRepLKNet-S on ADE20K, 640 crops, ImageNet-22K weights (paper, Table 7).

Paper: mIoU 51.9 single-scale, 52.7 multi-scale; 86 M parameters and 1618 GFLOPs at 640x2560.
Not reproduced here. The authors' README has 52.3 and 52.7 for these weights.

    bash tools/dist_train.sh configs/seg/upernet_unireplknet_s_in22k_160k.py 8
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_640.py',
    '../_base_/schedules/ade20k_160k.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        arch='s',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_s_in22k_to_in1k'),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.9))
