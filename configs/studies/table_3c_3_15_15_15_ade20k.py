"""Table 3c of the paper: kernels of 3-15-15-15 in the four stages; UPerNet on ADE20K.

Paper: mIoU 45.9 single-scale. Not reproduced here.

It starts from what `table_3c_3_15_15_15_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3c_3_15_15_15_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        arch=dict(kernel_sizes=(3, 15, 15, 15)),
        init_cfg=dict(checkpoint='work_dirs/table_3c_3_15_15_15_in1k/epoch_100.pth'),
    )
)
