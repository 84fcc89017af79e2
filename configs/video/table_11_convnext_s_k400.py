"""Table 11 of the paper, video: ConvNeXt-S, whose kernels are 7×7, on Kinetics-400.

Paper: top-1 48.5. Not reproduced here.

    bash tools/dist_train.sh configs/video/table_11_convnext_s_k400.py 8
"""

_base_ = ['./unireplknet_s_k400.py', '../_base_/models/table_11.py']

model = dict(backbone=dict(_base_.convnext_s, in_channels=3), head=dict(in_channels=768))
