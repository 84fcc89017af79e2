"""300 epochs from scratch with AdamW, batch 4096, 5 epochs of warm-up, then cosine (Table 16).

The batch is 8 GPUs x 128 images x 4 accumulated steps. The warm-up is the paper's; the published
commands leave it at the 20 epochs of the training script.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    accumulative_counts=4,
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=1.0, num_layers=12),
)
# Schedulers without an `end` last as long as the training.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=5, convert_to_iter_based=True
    ),
]
# Epochs end with an update: 312 of 8 steps for S, 313 of 4 for the others, on 8 GPUs.
train_cfg = dict(type='WholeStepTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# MMEngine does not count accumulated steps: images of one step, batch 4096 / 4.
auto_scale_lr = dict(enable=False, base_batch_size=1024)
