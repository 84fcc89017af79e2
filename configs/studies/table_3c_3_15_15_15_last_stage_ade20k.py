"""Table 3c of the paper: kernels of 3-15-15-15, UPerNet on the last stage's map alone.

Paper: mIoU 42.7 single-scale. Not reproduced here.

It starts from what `table_3c_3_15_15_15_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3c_3_15_15_15_last_stage_ade20k.py 8
"""

_base_ = './table_3c_last_stage_ade20k.py'

model = dict(
    backbone=dict(
        arch=dict(kernel_sizes=(3, 15, 15, 15)),
        init_cfg=dict(checkpoint='work_dirs/table_3c_3_15_15_15_in1k/epoch_100.pth'),
    )
)
