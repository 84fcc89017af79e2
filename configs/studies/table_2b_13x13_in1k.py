"""Table 2b of the paper: MobileNet V2 with 13×13 kernels (also 2a); ImageNet-1K.

Paper: top-1 72.53. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_2b_13x13_in1k.py 8
"""

_base_ = './mobilenet_v2_in1k.py'

model = dict(backbone=dict(kernel_sizes=13))
