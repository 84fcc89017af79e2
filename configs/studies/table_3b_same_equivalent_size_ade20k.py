"""Table 3b of the paper: undilated branches as large as the dilated reach; UPerNet on ADE20K.

Paper: mIoU 46.17 ± 0.04 single-scale. Not reproduced here.

In deploy form it is the vanilla architecture.

It starts from what `table_3b_same_equivalent_size_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3b_same_equivalent_size_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        branches={13: ((5, 1), (13, 1), (7, 1), (9, 1), (11, 1))},
        init_cfg=dict(checkpoint='work_dirs/table_3b_same_equivalent_size_in1k/epoch_100.pth'),
    )
)
