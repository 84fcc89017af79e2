"""Table 3d of the paper: 27 LarK blocks in stage 3; UPerNet on ADE20K.

Paper: mIoU 49.0 single-scale. Not reproduced here.

It starts from what `table_3d_27_lark_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3d_27_lark_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        arch=dict(depths=(3, 3, 27, 3), kernel_sizes=(3, 13, 13, 13)),
        init_cfg=dict(checkpoint='work_dirs/table_3d_27_lark_in1k/epoch_100.pth'),
    )
)
