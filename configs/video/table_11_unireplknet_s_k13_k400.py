"""Table 11 of the paper, video: UniRepLKNet-S with 13×13 kernels on Kinetics-400.

Paper: top-1 54.8. Not reproduced here.

    bash tools/dist_train.sh configs/video/table_11_unireplknet_s_k13_k400.py 8
"""

_base_ = './unireplknet_s_k400.py'
