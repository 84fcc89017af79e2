"""Table 11 of the paper, point clouds: UniRepLKNet-S with 13×13 kernels on ModelNet-40.

Paper: OA 93.2. Not reproduced here.

    python tools/train.py configs/point_cloud/table_11_unireplknet_s_k13_modelnet40.py
"""

_base_ = './unireplknet_s_modelnet40.py'
