"""Table 3b of the paper: 13×13 kernels without branches; UPerNet on ADE20K.

Paper: mIoU 45.78 ± 0.05 single-scale. Not reproduced here.

In deploy form it is the vanilla architecture.

It starts from what `table_3b_none_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3b_none_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        branches={13: ()},
        init_cfg=dict(checkpoint='work_dirs/table_3b_none_in1k/epoch_100.pth'),
    )
)
