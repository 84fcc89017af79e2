"""The vanilla architecture with SE on ImageNet-1K, 100 epochs (paper, Tables 3a to 3d; §3.2).

Paper: top-1 81.6, in Table 3b 81.63 ± 0.02; 32.9 M parameters and 4.92 GFLOPs in deploy form.
Not reproduced here.

It is row D of Table 3a, the dilated one of 3b and the first of 3c and 3d; the configs of the other
rows inherit it. Drop path and epochs are appendix B's, mixup and cutmix those of T and S.

    bash tools/dist_train.sh configs/studies/vanilla_in1k.py 8
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/in1k_100e.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(
        arch=dict(depths=(3, 3, 9, 3), channels=(96, 192, 384, 768)),
        drop_path_rate=0.1,
    ),
    head=dict(in_channels=768),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
