"""UniRepLKNet-B, ImageNet-22K weights fine-tuned on ImageNet-1K at 384 (paper, Tables 5 and 17).

Paper: top-1 87.4; 97.9 M parameters and 47.2 GFLOPs in deploy form; 30 epochs. Not reproduced
here.

    bash tools/dist_train.sh configs/cls/unireplknet_b_in22k_to_in1k_384.py 8
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_384.py',
    '../_base_/schedules/in22k_to_in1k.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(
        arch='b',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_b_in22k'),
    ),
    head=dict(
        in_channels=1024,
        # A thousandth of the usual 0.02: the new head starts near zero.
        init_cfg=dict(std=2e-5),
    ),
)
