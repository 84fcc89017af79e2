"""Table 3d of the paper: 9 LarK and 18 SmaK blocks in stage 3, those of S; ImageNet-1K, 100 epochs.

Paper: top-1 82.3; 55.6 M parameters and 9.10 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_3d_9_lark_18_smak_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(
    backbone=dict(arch=dict(depths=(3, 3, 27, 3), kernel_sizes=(3, 13, (13, 3, 3) * 9, 13)))
)
