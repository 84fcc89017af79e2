"""50 epochs with AdamW, batch 16, the learning rate cut tenfold after epochs 44 and 48.

Gradients are clipped at 0.01. mmdet counts iterations and cuts after 44.4 and 48.2 epochs. The
backbone's learning rates decay layer by layer; mmdet multiplies them by 0.1. A leaf adds the decay
rate.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(
        num_layers=12,
        custom_keys={
            name: dict(decay_mult=0.0) for name in ('query_embed', 'query_feat', 'level_embed')
        },
    ),
)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, milestones=[44, 48], gamma=0.1)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=50, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 GPUs x 2 images
