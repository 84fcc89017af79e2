"""Fine-tuning of ImageNet-22K weights on ImageNet-1K: AdamW, batch 512, cosine, no warm-up (Table 17).

The layer decay of 0.8 and the small head are those of the published commands. The learning rate
ends at 1e-6 / 5e-5 of what each layer starts with.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-5, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-8),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.8, num_layers=12),
)
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=True, convert_to_iter_based=True)
]
# Epochs end with an update, where a leaf accumulates gradients.
train_cfg = dict(type='WholeStepTrainLoop', max_epochs=30, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=512)  # 8 GPUs x 64 images
