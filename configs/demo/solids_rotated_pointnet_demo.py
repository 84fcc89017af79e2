"""PointNet on the rotated clouds of `solids_rotated_unireplknet_demo.py`.

python tools/train.py configs/demo/solids_rotated_pointnet_demo.py
"""

_base_ = './solids_rotated_unireplknet_demo.py'

model = dict(
    embedding=dict(_delete_=True, type='PointColumn'),
    backbone=dict(_delete_=True, type='PointNet', channels=(64, 64, 64, 128, 512)),
    head=dict(in_channels=256),
)
