"""Mask2Former with UniRepLKNet-T on ADE20K, 512 crops, ImageNet-1K weights.

The paper does not have it, and it was not trained here. Drop path is that of T's published
segmenter, layer decay that of S's.

    bash tools/dist_train.sh configs/seg/mask2former_unireplknet_t_160k.py 8
"""

_base_ = [
    '../_base_/models/mask2former_semantic.py',
    '../_base_/datasets/ade20k_512_mask2former.py',
    '../_base_/schedules/mask2former_160k.py',
    '../_base_/seg_runtime.py',
]

custom_imports = dict(imports=['unireplknet_mm', 'mmdet.models'])
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        arch='t',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_t_in1k'),
    ),
    decode_head=dict(in_channels=[80, 160, 320, 640]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.9))
