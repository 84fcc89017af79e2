"""UPerNet with UniRepLKNet-T on ADE20K, 512 crops, ImageNet-1K weights (paper, Table 7).

Paper: mIoU 48.6 single-scale, 49.1 multi-scale; 61 M parameters and 946 GFLOPs at 512x2048.
Not reproduced here.

    bash tools/dist_train.sh configs/seg/upernet_unireplknet_t_160k.py 8
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
        arch='t',
        drop_path_rate=0.2,
        with_cp=False,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_t_in1k'),
    ),
    decode_head=dict(in_channels=[80, 160, 320, 640]),
    auxiliary_head=dict(in_channels=320),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=1.0))
