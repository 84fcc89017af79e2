"""UniRepLKNet-H on ImageNet-22K at 192, from scratch for 90 epochs: derived from XL, not the paper's.

The paper has its 1.4 B parameters (Table 4), but no training and no figure of it. Not trained here.
with_cp saves the memory that its width costs.

    bash tools/dist_train.sh configs/cls/unireplknet_h_in22k.py 8
"""

_base_ = [
    '../_base_/models/classifier_22k.py',
    '../_base_/datasets/imagenet22k_192.py',
    '../_base_/schedules/in22k_90e.py',
    '../_base_/cls_runtime_pretraining.py',
]

model = dict(backbone=dict(arch='h', drop_path_rate=0.2, with_cp=True), head=dict(in_channels=3840))
