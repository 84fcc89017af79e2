"""Table 2a of the paper: MobileNet V2 with 3×3 kernels, without shortcuts; ImageNet-1K.

Paper: top-1 68.67. Not reproduced here.

Without shortcuts there is no drop path either.

    bash tools/dist_train.sh configs/studies/table_2a_3x3_without_shortcuts_in1k.py 8
"""

_base_ = './mobilenet_v2_in1k.py'

model = dict(backbone=dict(has_shortcut=False))
