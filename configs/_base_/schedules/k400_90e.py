"""90 epochs from scratch with AdamW, 64 videos a step, 5 epochs of warm-up, then cosine (§4.2, its code).

The batch is 8 GPUs x 4 videos x 2 accumulated steps, each video twice: 128 clips. The learning rate is
4e-3 x 64 / 256 = 1e-3, and so is its end, 1e-6, scaled.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    accumulative_counts=2,
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=1.0, num_layers=12),
)
# Schedulers without an `end` last as long as the training.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=2.5e-7, by_epoch=True, begin=5, convert_to_iter_based=True
    ),
]
train_cfg = dict(type='WholeStepTrainLoop', max_epochs=90, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# MMEngine does not count accumulated steps: clips of one step, 8 GPUs x 8.
auto_scale_lr = dict(enable=False, base_batch_size=64)
