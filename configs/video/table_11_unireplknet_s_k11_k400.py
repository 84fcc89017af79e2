"""Table 11 of the paper, video: UniRepLKNet-S with 11×11 kernels on Kinetics-400.

Paper: top-1 51.7. Not reproduced here.

    bash tools/dist_train.sh configs/video/table_11_unireplknet_s_k11_k400.py 8
"""

_base_ = ['./unireplknet_s_k400.py', '../_base_/models/table_11.py']

model = dict(backbone=_base_.unireplknet_s_k11)
