"""Table 3c of the paper: kernels of 3-15-15-15 in the four stages; ImageNet-1K, 100 epochs.

Paper: top-1 81.7; 33.3 M parameters and 4.99 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_3c_3_15_15_15_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(backbone=dict(arch=dict(kernel_sizes=(3, 15, 15, 15))))
