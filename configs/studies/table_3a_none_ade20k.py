"""Table 3a of the paper: no extra structure; UPerNet on ADE20K.

Paper: mIoU 45.1 single-scale. Not reproduced here.

It starts from what `table_3a_none_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3a_none_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        extra_structure='none',
        init_cfg=dict(checkpoint='work_dirs/table_3a_none_in1k/epoch_100.pth'),
    )
)
