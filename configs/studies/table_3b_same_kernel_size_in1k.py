"""Table 3b of the paper: branches of the same kernel sizes, undilated; ImageNet-1K, 100 epochs.

Paper: top-1 81.55 ± 0.01. Not reproduced here.

In deploy form it is the vanilla architecture.

    bash tools/dist_train.sh configs/studies/table_3b_same_kernel_size_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(backbone=dict(branches={13: ((5, 1), (7, 1), (3, 1), (3, 1), (3, 1))}))
