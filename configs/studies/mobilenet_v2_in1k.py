"""MobileNet V2 with 3×3 kernels on ImageNet-1K, 100 epochs (paper, Tables 2a and 2c; §3.1.2).

Paper: top-1 71.76; 2.64 M parameters and 214.5 MFLOPs without branches. Not reproduced here.

The width of 0.75, which the paper does not state, is the one that has these parameters. The
configs of the other rows inherit it. Drop path and epochs are appendix B's for all of §3; mixup
and cutmix, which Table 16 has by model, are those of A, the nearest in size.

    bash tools/dist_train.sh configs/studies/mobilenet_v2_in1k.py 8
"""

_base_ = [
    '../_base_/models/plain_classifier.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/in1k_100e_one_rate.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(type='LargeKernelMobileNetV2', widen_factor=0.75, drop_path_rate=0.1),
    head=dict(in_channels=1280),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.3), dict(type='CutMix', alpha=0.3)]),
)
