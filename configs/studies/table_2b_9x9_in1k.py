"""Table 2b of the paper: MobileNet V2 with 9×9 kernels; ImageNet-1K.

Paper: top-1 72.67. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_2b_9x9_in1k.py 8
"""

_base_ = './mobilenet_v2_in1k.py'

model = dict(backbone=dict(kernel_sizes=9))
