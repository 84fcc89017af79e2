"""Table 3a of the paper: (C) two depthwise 3×3 convolutions; ImageNet-1K, 100 epochs.

Paper: top-1 81.3; 31.4 M parameters and 4.96 GFLOPs in deploy form. Not reproduced here.

The paper does not say where its Fig. 7 has the structure: it stands where SE does, without a
shortcut.

    bash tools/dist_train.sh configs/studies/table_3a_two_dw3x3_in1k.py 8
"""

_base_ = './vanilla_in1k.py'

model = dict(backbone=dict(extra_structure='two_dw3x3'))
