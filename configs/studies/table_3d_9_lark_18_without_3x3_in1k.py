"""Table 3d of the paper: 9 LarK blocks and 18 without a depthwise 3×3 in stage 3; ImageNet-1K, 100 epochs.

Paper: top-1 82.2; 55.5 M parameters and 9.08 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_3d_9_lark_18_without_3x3_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(
    backbone=dict(arch=dict(depths=(3, 3, 27, 3), kernel_sizes=(3, 13, (13, 1, 1) * 9, 13)))
)
