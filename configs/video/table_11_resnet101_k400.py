"""Table 11 of the paper, video: ResNet-101, whose kernels are 3×3, on Kinetics-400.

Paper: top-1 41.3. Not reproduced here.

    bash tools/dist_train.sh configs/video/table_11_resnet101_k400.py 8
"""

_base_ = './unireplknet_s_k400.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=101, out_indices=(3,), style='pytorch'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=2048),
)
