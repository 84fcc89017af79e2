"""Table 8's schedule on Speech Commands: Adam, 100 epochs, the rate times 0.85 an epoch from epoch 5 on.

One process with batches of 128. AST raises the rate over the first 1,000 updates, as here.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=2.5e-4, betas=(0.95, 0.999), weight_decay=5e-7),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', milestones=list(range(5, 100)), gamma=0.85, by_epoch=True),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
