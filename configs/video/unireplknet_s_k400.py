"""UniRepLKNet-S on Kinetics-400, 16 frames as one image of 896×896, from scratch (paper, Table 9).

Paper: top-1 54.8; 55.5 M parameters. Not reproduced here.

    bash tools/dist_train.sh configs/video/unireplknet_s_k400.py 8
"""

_base_ = [
    '../_base_/models/video_classifier.py',
    '../_base_/datasets/kinetics400.py',
    '../_base_/schedules/k400_90e.py',
    '../_base_/video_runtime.py',
]

model = dict(
    backbone=dict(arch='s', drop_path_rate=0.4),
    head=dict(in_channels=768),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
