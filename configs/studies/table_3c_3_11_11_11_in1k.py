"""Table 3c of the paper: kernels of 3-11-11-11 in the four stages; ImageNet-1K, 100 epochs.

Paper: top-1 81.6; 32.6 M parameters and 4.86 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_3c_3_11_11_11_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(backbone=dict(arch=dict(kernel_sizes=(3, 11, 11, 11))))
