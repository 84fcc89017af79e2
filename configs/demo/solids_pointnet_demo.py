"""PointNet on the clouds of `solids_unireplknet_demo.py`, to compare with: same data, pipeline and training.

python tools/train.py configs/demo/solids_pointnet_demo.py
"""

_base_ = './solids_unireplknet_demo.py'

model = dict(
    embedding=dict(_delete_=True, type='PointColumn'),
    backbone=dict(_delete_=True, type='PointNet', channels=(64, 64, 64, 128, 512)),
    head=dict(in_channels=256),
)
