"""Table 3a of the paper: (C) two depthwise 3×3 convolutions; UPerNet on ADE20K.

Paper: mIoU 45.4 single-scale. Not reproduced here.

The paper does not say where its Fig. 7 has the structure: it stands where SE does, without a
shortcut.

It starts from what `table_3a_two_dw3x3_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3a_two_dw3x3_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        extra_structure='two_dw3x3',
        init_cfg=dict(checkpoint='work_dirs/table_3a_two_dw3x3_in1k/epoch_100.pth'),
    )
)
