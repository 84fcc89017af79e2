"""Table 3c of the paper: the vanilla architecture, UPerNet on the last stage's map alone.

Paper: mIoU 42.4 single-scale. Not reproduced here.

The FCN head at stage 3, which only trains, stays. It starts from what `vanilla_in1k.py` leaves.

    bash tools/dist_train.sh configs/studies/table_3c_last_stage_ade20k.py 8
"""

_base_ = './vanilla_ade20k.py'

model = dict(
    backbone=dict(out_indices=(2, 3)),  # no norms that nothing reads
    decode_head=dict(in_channels=[768], in_index=[1]),
    auxiliary_head=dict(in_index=0),
)
