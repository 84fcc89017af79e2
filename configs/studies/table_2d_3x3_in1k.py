"""Table 2d of the paper: RepLKNet with 3×3 kernels in all stages; ImageNet-1K, 100 epochs.

Paper: top-1 82.11; 71.8 M parameters and 12.9 GFLOPs in deploy form. Not reproduced here.

The paper does not name its base model: 31B of RepLKNet has these parameters and FLOPs. The configs
of the other rows inherit this one.

    bash tools/dist_train.sh configs/studies/table_2d_3x3_in1k.py 8
"""

_base_ = [
    '../_base_/models/plain_classifier.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/in1k_100e_one_rate.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(
        type='FoldableRepLKNet',
        kernel_sizes=(3, 3, 3, 3),
        out_indices=(3,),
        has_final_norm=True,
        drop_path_rate=0.1,
    ),
    head=dict(in_channels=1024),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
