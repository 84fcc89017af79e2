"""A model of a user's own, whose UniRepLKNets are not called `backbone` and take eight channels and one."""

custom_imports = dict(imports=['unireplknet_mm', 'two_encoders'])
input_shape = (9, 40, 48)

arch = dict(depths=(1, 1, 3, 1), channels=(8, 16, 24, 32), kernel_sizes=(3, 13, 7, 7))
encoder = dict(type='UniRepLKNet', arch=arch, out_indices=(3,), layer_scale_init_value=0.5)
model = dict(
    type='TwoEncoders',
    image_encoder=dict(encoder, in_channels=8),
    depth_encoder=dict(encoder, in_channels=1),
)

train_dataloader = dict(
    dataset=dict(type='RandomMaps'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_size=2,
    collate_fn=dict(type='default_collate'),
)
test_dataloader = dict(
    dataset=dict(type='RandomMaps'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_size=2,
    collate_fn=dict(type='default_collate'),
)
train_cfg = dict(by_epoch=True, max_epochs=1)
test_cfg = dict()
test_evaluator = dict(type='LogitNorm')
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.5),
)
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1))
