"""Table 2b of the paper: MobileNet V2 with 13×13 kernels and 3×3 branches; ImageNet-1K.

Paper: top-1 73.24. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_2b_13x13_reparam_in1k.py 8
"""

_base_ = './mobilenet_v2_in1k.py'

model = dict(
    backbone=dict(
        kernel_sizes=13,
        small_kernel_size=3,
    )
)
