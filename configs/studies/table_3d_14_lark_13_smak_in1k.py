"""Table 3d of the paper: 14 LarK and 13 SmaK blocks in turn in stage 3; ImageNet-1K, 100 epochs.

Paper: top-1 82.3; 55.9 M parameters and 9.15 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_3d_14_lark_13_smak_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(
    backbone=dict(arch=dict(depths=(3, 3, 27, 3), kernel_sizes=(3, 13, (13, 3) * 13 + (13,), 13)))
)
