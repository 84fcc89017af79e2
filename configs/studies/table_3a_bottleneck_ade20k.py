"""Table 3a of the paper: (A) a bottleneck with a depthwise 3×3; UPerNet on ADE20K.

Paper: mIoU 46.3 single-scale. Not reproduced here.

The paper does not say where its Fig. 7 has the structure: it stands where SE does, without a
shortcut.

It starts from what `table_3a_bottleneck_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3a_bottleneck_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(
        extra_structure='bottleneck',
        init_cfg=dict(checkpoint='work_dirs/table_3a_bottleneck_in1k/epoch_100.pth'),
    )
)
