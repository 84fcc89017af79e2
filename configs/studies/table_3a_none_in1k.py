"""Table 3a of the paper: no extra structure; ImageNet-1K, 100 epochs.

Paper: top-1 81.2; 31.3 M parameters and 4.92 GFLOPs in deploy form. Not reproduced here.

    bash tools/dist_train.sh configs/studies/table_3a_none_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(backbone=dict(extra_structure='none'))
