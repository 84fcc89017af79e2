"""UPerNet with UniRepLKNet-B on ADE20K, 640 crops, ImageNet-22K weights (paper, Table 7).

Paper: mIoU 53.5 single-scale, 53.9 multi-scale; 130 M parameters and 1850 GFLOPs at 640x2560.
Not reproduced here.

    bash tools/dist_train.sh configs/seg/upernet_unireplknet_b_160k.py 8
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
        arch='b',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_b_in22k_to_in1k'),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.9))
