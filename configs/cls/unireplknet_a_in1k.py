"""UniRepLKNet-A on ImageNet-1K at 224, from scratch for 300 epochs (paper, Tables 5 and 16).

Paper: top-1 77.0; 4.4 M parameters and 0.6 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/cls/unireplknet_a_in1k.py 8
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/in1k_300e.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(arch='a', drop_path_rate=0.0),
    head=dict(in_channels=320),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.3), dict(type='CutMix', alpha=0.3)]),
)
