"""Table 3c of the paper: kernels of 13-13-13-13 in the four stages; ImageNet-1K, 100 epochs.

Paper: top-1 81.6; 33.0 M parameters and 5.06 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_3c_13_13_13_13_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(backbone=dict(arch=dict(kernel_sizes=(13, 13, 13, 13))))
