"""Table 2a of the paper: MobileNet V2 with 13×13 kernels, without shortcuts; ImageNet-1K.

Paper: top-1 53.98. Not reproduced here.

Without shortcuts there is no drop path either.

    bash tools/dist_train.sh configs/studies/table_2a_13x13_without_shortcuts_in1k.py 8
"""

_base_ = './mobilenet_v2_in1k.py'

model = dict(
    backbone=dict(
        kernel_sizes=13,
        has_shortcut=False,
    )
)
