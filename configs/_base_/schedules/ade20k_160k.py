"""160k iterations with AdamW, batch 16, polynomial decay of power 1 (appendix B).

The learning rate after the warm-up is lr * (1 - iteration / 160000): as in the published configs,
the decay runs from the first iteration on and the warm-up multiplies it. Weight decay and warm-up
are theirs too. A leaf adds the decay rate of the layers.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(num_layers=12),
)
# Schedulers without an `end` last as long as the training.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=16)  # 8 GPUs x 2 images
