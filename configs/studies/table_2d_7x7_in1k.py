"""Table 2d of the paper: RepLKNet with 7×7 kernels in all stages; ImageNet-1K, 100 epochs.

Paper: top-1 82.73; 72.2 M parameters and 13.1 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_2d_7x7_in1k.py 8
"""

_base_ = './table_2d_3x3_in1k.py'

model = dict(backbone=dict(kernel_sizes=(7, 7, 7, 7)))
