"""Table 3c of the paper: kernels of 3-13-13-3 in the four stages; ImageNet-1K, 100 epochs.

Paper: top-1 81.4; 32.5 M parameters and 4.90 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_3c_3_13_13_3_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(backbone=dict(arch=dict(kernel_sizes=(3, 13, 13, 3))))
