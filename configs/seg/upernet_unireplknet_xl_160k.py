"""UPerNet with UniRepLKNet-XL on ADE20K, 640 crops, ImageNet-22K weights (paper, Table 7).

Paper: mIoU 55.2 single-scale, 55.6 multi-scale; 425 M parameters and 3420 GFLOPs at 640x2560.
Not reproduced here.
No config was published for this one: drop path and layer decay are those of UniRepLKNet-L.

    bash tools/dist_train.sh configs/seg/upernet_unireplknet_xl_160k.py 8
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
        arch='xl',
        drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_xl_in22k_to_in1k'),
    ),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.85))
