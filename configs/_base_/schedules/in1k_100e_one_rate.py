"""`in1k_100e` for backbones that do not divide themselves into layers of decay: one learning rate."""

_base_ = './in1k_100e.py'

optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
