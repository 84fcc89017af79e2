"""Table 2b of the paper: MobileNet V2 with 13×13 kernels and 3×3 branches; Cityscapes.

Paper: mIoU 76.60. Not reproduced here.

It starts from what `table_2b_13x13_reparam_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_2b_13x13_reparam_cityscapes.py 4
"""

_base_ = './mobilenet_v2_cityscapes.py'

model = dict(
    backbone=dict(
        kernel_sizes=13,
        small_kernel_size=3,
        init_cfg=dict(checkpoint='work_dirs/table_2b_13x13_reparam_in1k/epoch_100.pth'),
    )
)
