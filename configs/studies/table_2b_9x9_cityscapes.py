"""Table 2b of the paper: MobileNet V2 with 9×9 kernels; Cityscapes.

Paper: mIoU 76.11. Not reproduced here.

It starts from what `table_2b_9x9_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_2b_9x9_cityscapes.py 4
"""

_base_ = './mobilenet_v2_cityscapes.py'

model = dict(
    backbone=dict(
        kernel_sizes=9,
        init_cfg=dict(checkpoint='work_dirs/table_2b_9x9_in1k/epoch_100.pth'),
    )
)
