"""Table 3b of the paper: undilated branches as large as the dilated reach; ImageNet-1K, 100 epochs.

Paper: top-1 81.59 ± 0.02. Not reproduced here.

In deploy form it is the vanilla architecture.

    bash tools/dist_train.sh configs/studies/table_3b_same_equivalent_size_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(backbone=dict(branches={13: ((5, 1), (13, 1), (7, 1), (9, 1), (11, 1))}))
