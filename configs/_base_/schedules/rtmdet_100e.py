"""100 epochs with AdamW, batch 128, a flat learning rate that falls along a cosine from epoch 50 on.

mmdet's schedule of RTMDet with pre-trained backbones: mosaic and mixup end 10 epochs before the
training does, and a moving average of the weights is validated. A leaf adds the decay rate of the
layers and, as a hook, the pipeline to switch to.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(num_layers=12),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.05,
        by_epoch=True,
        begin=50,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(
    type='EpochBasedTrainLoop', max_epochs=100, val_interval=10, dynamic_intervals=[(90, 1)]
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

average_hook = dict(
    type='EMAHook', ema_type='ExpMomentumEMA', momentum=2e-4, update_buffers=True, priority=49
)
auto_scale_lr = dict(enable=False, base_batch_size=128)  # 4 GPUs x 32 images
