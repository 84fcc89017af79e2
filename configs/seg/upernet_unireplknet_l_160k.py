"""UPerNet with UniRepLKNet-L on ADE20K, 640 crops, ImageNet-22K weights (paper, Table 7).

Paper: mIoU 54.5 single-scale, 55.1 multi-scale; 254 M parameters and 2507 GFLOPs at 640x2560.
Not reproduced here.

    bash tools/dist_train.sh configs/seg/upernet_unireplknet_l_160k.py 8
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
        arch='l',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_l_in22k_to_in1k'),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.85))
