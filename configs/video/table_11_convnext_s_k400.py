"""Table 11 of the paper, video: ConvNeXt-S, whose kernels are 7×7, on Kinetics-400.

Paper: top-1 48.5. Not reproduced here.

    bash tools/dist_train.sh configs/video/table_11_convnext_s_k400.py 8
"""

_base_ = './unireplknet_s_k400.py'

model = dict(
    backbone=dict(_delete_=True, type='ConvNeXt', arch='small', drop_path_rate=0.4),
    head=dict(in_channels=768),
)
