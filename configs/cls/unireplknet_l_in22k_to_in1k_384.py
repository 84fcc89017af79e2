"""UniRepLKNet-L, ImageNet-22K weights fine-tuned on ImageNet-1K at 384 (paper, Tables 5 and 17).

Paper: top-1 87.9; 218.3 M parameters and 105.4 GFLOPs in deploy form; 20 epochs. Not reproduced
here.

    bash tools/dist_train.sh configs/cls/unireplknet_l_in22k_to_in1k_384.py 8
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_384.py',
    '../_base_/schedules/in22k_to_in1k_20e.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(
        arch='l',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_l_in22k'),
    ),
    head=dict(
        in_channels=1536,
        loss=dict(label_smooth_val=0.3),
        # A thousandth of the usual 0.02: the new head starts near zero.
        init_cfg=dict(std=2e-5),
    ),
)
