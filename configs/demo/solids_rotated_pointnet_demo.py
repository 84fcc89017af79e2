"""PointNet on the rotated clouds of `solids_rotated_unireplknet_demo.py`.

python tools/train.py configs/demo/solids_rotated_pointnet_demo.py
"""

_base_ = './solids_rotated_unireplknet_demo.py'

model = dict(
    embedding=dict(_delete_=True, type='PointColumn'),
    backbone=dict(_delete_=True, type='PointNet', channels=(32, 64, 64, 128, 256)),
    head=dict(in_channels=256),
)
# PointNet has no layers to decay; norms and biases stay without weight decay, as in the other.
optim_wrapper = dict(
    constructor='DefaultOptimWrapperConstructor',
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0, bias_decay_mult=0.0),
)
