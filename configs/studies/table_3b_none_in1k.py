"""Table 3b of the paper: 13×13 kernels without branches; ImageNet-1K, 100 epochs.

Paper: top-1 81.44 ± 0.04. Not reproduced here.

In deploy form it is the vanilla architecture.

    bash tools/dist_train.sh configs/studies/table_3b_none_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(backbone=dict(branches={13: ()}))
