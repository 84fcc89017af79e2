"""Table 3b of the paper: branches of the same kernel sizes, undilated; UPerNet on ADE20K.

Paper: mIoU 46.07 ± 0.07 single-scale. Not reproduced here.

In deploy form it is the vanilla architecture.

It starts from what `table_3b_same_kernel_size_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3b_same_kernel_size_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        branches={13: ((5, 1), (7, 1), (3, 1), (3, 1), (3, 1))},
        init_cfg=dict(checkpoint='work_dirs/table_3b_same_kernel_size_in1k/epoch_100.pth'),
    )
)
