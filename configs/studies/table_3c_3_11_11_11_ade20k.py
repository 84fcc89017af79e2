"""Table 3c of the paper: kernels of 3-11-11-11 in the four stages; UPerNet on ADE20K.

Paper: mIoU 45.5 single-scale. Not reproduced here.

It starts from what `table_3c_3_11_11_11_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3c_3_11_11_11_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        arch=dict(kernel_sizes=(3, 11, 11, 11)),
        init_cfg=dict(checkpoint='work_dirs/table_3c_3_11_11_11_in1k/epoch_100.pth'),
    )
)
