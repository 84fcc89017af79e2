"""12 epochs with AdamW, batch 16, the learning rate cut tenfold after epoch 11, gradients clipped at 0.1.

mmdet's schedule of DINO but for the backbone's learning rates, which decay layer by layer; mmdet
multiplies them by 0.1. A leaf adds the decay rate.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(num_layers=12),
)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, milestones=[11], gamma=0.1)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 GPUs x 2 images
