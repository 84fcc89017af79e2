"""UniRepLKNet-S on ImageNet-1K at 224, from scratch for 300 epochs (paper, Tables 5 and 16).

Paper: top-1 83.9; 55.6 M parameters and 9.1 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/cls/unireplknet_s_in1k.py 8
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/schedules/in1k_300e.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(arch='s', drop_path_rate=0.4),
    head=dict(in_channels=768),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

# 8 GPUs x 64 images x 8 accumulated steps, as published; the learning rate scales with one step.
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(accumulative_counts=8)
auto_scale_lr = dict(base_batch_size=512)
