"""Table 2d of the paper: RepLKNet with 13×13 kernels in all stages; ImageNet-1K, 100 epochs.

Paper: top-1 83.02; 73.7 M parameters and 13.4 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_2d_13x13_in1k.py 8
"""

_base_ = './table_2d_3x3_in1k.py'

model = dict(backbone=dict(kernel_sizes=(13, 13, 13, 13)))
