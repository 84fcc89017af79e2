"""UniRepLKNet-B on ImageNet-22K at 224, from scratch for 90 epochs (paper, Table 17).

The paper has no figure for the pre-training; fine-tuned on ImageNet-1K at 384 the top-1 is 87.4
(`unireplknet_b_in22k_to_in1k_384.py`). Not trained here.

    bash tools/dist_train.sh configs/cls/unireplknet_b_in22k.py 8
"""

_base_ = [
    '../_base_/models/classifier_22k.py',
    '../_base_/datasets/imagenet22k_224.py',
    '../_base_/schedules/in22k_90e.py',
    '../_base_/cls_runtime_pretraining.py',
]

model = dict(backbone=dict(arch='b', drop_path_rate=0.1), head=dict(in_channels=1024))
