"""Table 3a of the paper: (B) two 1×1 convolutions; ImageNet-1K, 100 epochs.

Paper: top-1 81.3; 32.9 M parameters and 5.17 GFLOPs in deploy form. Not reproduced here.

The paper does not say where its Fig. 7 has the structure: it stands where SE does, without a
shortcut.

    bash tools/dist_train.sh configs/studies/table_3a_two_1x1_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(backbone=dict(extra_structure='two_1x1'))
