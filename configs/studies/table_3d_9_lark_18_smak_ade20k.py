"""Table 3d of the paper: 9 LarK and 18 SmaK blocks in stage 3, those of S; UPerNet on ADE20K.

Paper: mIoU 48.8 single-scale. Not reproduced here.

It starts from what `table_3d_9_lark_18_smak_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3d_9_lark_18_smak_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        arch=dict(depths=(3, 3, 27, 3), kernel_sizes=(3, 13, (13, 3, 3) * 9, 13)),
        init_cfg=dict(checkpoint='work_dirs/table_3d_9_lark_18_smak_in1k/epoch_100.pth'),
    )
)
