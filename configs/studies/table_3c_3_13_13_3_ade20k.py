"""Table 3c of the paper: kernels of 3-13-13-3 in the four stages; UPerNet on ADE20K.

Paper: mIoU 45.8 single-scale. Not reproduced here.

It starts from what `table_3c_3_13_13_3_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3c_3_13_13_3_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        arch=dict(kernel_sizes=(3, 13, 13, 3)),
        init_cfg=dict(checkpoint='work_dirs/table_3c_3_13_13_3_in1k/epoch_100.pth'),
    )
)
