"""Table 11 of the paper, point clouds: UniRepLKNet-S with 11×11 kernels on ModelNet-40.

Paper: OA 92.9. Not reproduced here.

    python tools/train.py configs/point_cloud/table_11_unireplknet_s_k11_modelnet40.py
"""

_base_ = ['./unireplknet_s_modelnet40.py', '../_base_/models/table_11.py']

model = dict(backbone=_base_.unireplknet_s_k11)
