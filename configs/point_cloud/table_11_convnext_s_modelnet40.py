"""Table 11 of the paper, point clouds: ConvNeXt-S, whose kernels are 7×7, on ModelNet-40.

Paper: OA 92.7. Not reproduced here.

    python tools/train.py configs/point_cloud/table_11_convnext_s_modelnet40.py
"""

_base_ = ['./unireplknet_s_modelnet40.py', '../_base_/models/table_11.py']

model = dict(backbone=dict(_base_.convnext_s, in_channels=3), head=dict(in_channels=768))
