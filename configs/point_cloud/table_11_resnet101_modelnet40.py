"""Table 11 of the paper, point clouds: ResNet-101, whose kernels are 3×3, on ModelNet-40.

Paper: OA 92.6. Not reproduced here.

    python tools/train.py configs/point_cloud/table_11_resnet101_modelnet40.py
"""

_base_ = ['./unireplknet_s_modelnet40.py', '../_base_/models/table_11.py']

model = dict(
    backbone=dict(_base_.resnet_101, in_channels=3),
    neck=_base_.pooling,
    head=dict(in_channels=2048),
)
