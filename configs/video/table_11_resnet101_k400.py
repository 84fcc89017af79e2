"""Table 11 of the paper, video: ResNet-101, whose kernels are 3×3, on Kinetics-400.

Paper: top-1 41.3. Not reproduced here.

    bash tools/dist_train.sh configs/video/table_11_resnet101_k400.py 8
"""

_base_ = ['./unireplknet_s_k400.py', '../_base_/models/table_11.py']

model = dict(
    backbone=dict(_base_.resnet_101, in_channels=3),
    neck=_base_.pooling,
    head=dict(in_channels=2048),
)
