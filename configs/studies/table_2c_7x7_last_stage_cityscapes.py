"""Table 2c of the paper: MobileNet V2 with 7×7 kernels in the last stage; Cityscapes.

Paper: mIoU 74.30. Not reproduced here.

The last stage is the layer of 320 channels (here 240), as the parameters say; §3.1.2 adds the
branches.

It starts from what `table_2c_7x7_last_stage_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_2c_7x7_last_stage_cityscapes.py 4
"""

_base_ = './mobilenet_v2_cityscapes.py'

model = dict(
    backbone=dict(
        kernel_sizes=(3, 3, 3, 3, 3, 3, 7),
        small_kernel_size=3,
        init_cfg=dict(checkpoint='work_dirs/table_2c_7x7_last_stage_in1k/epoch_100.pth'),
    )
)
