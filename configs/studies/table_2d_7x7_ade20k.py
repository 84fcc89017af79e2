"""Table 2d of the paper: RepLKNet with 7×7 kernels in all stages; UPerNet on ADE20K.

Paper: mIoU 48.05; 104.6 M parameters and 1123 GFLOPs in deploy form. Not reproduced here.

It starts from what `table_2d_7x7_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_2d_7x7_ade20k.py 8
"""

_base_ = './table_2d_3x3_ade20k.py'

model = dict(
    backbone=dict(
        kernel_sizes=(7, 7, 7, 7),
        init_cfg=dict(checkpoint='work_dirs/table_2d_7x7_in1k/epoch_100.pth'),
    )
)
