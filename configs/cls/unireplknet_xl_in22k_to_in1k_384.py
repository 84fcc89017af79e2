"""UniRepLKNet-XL, ImageNet-22K weights fine-tuned on ImageNet-1K at 384 (paper, Tables 5 and 17).

Paper: top-1 88.0; 386.4 M parameters and 187 GFLOPs in deploy form; 20 epochs. Not reproduced
here.

    bash tools/dist_train.sh configs/cls/unireplknet_xl_in22k_to_in1k_384.py 8
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_384.py',
    '../_base_/schedules/in22k_to_in1k_20e.py',
    '../_base_/cls_runtime.py',
]

model = dict(
    backbone=dict(
        arch='xl',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_xl_in22k'),
    ),
    head=dict(
        in_channels=2048,
        loss=dict(label_smooth_val=0.3),
        # A thousandth of the usual 0.02: the new head starts near zero.
        init_cfg=dict(std=2e-5),
    ),
)

# 8 GPUs x 32 images x 2 accumulated steps, as published; the learning rate scales with one step.
train_dataloader = dict(batch_size=32)
optim_wrapper = dict(accumulative_counts=2)
auto_scale_lr = dict(base_batch_size=256)
# One averaging for each optimizer step.
custom_hooks = [
    dict(type='EMAHook', momentum=1e-4, interval=2, update_buffers=True, priority='ABOVE_NORMAL')
]
