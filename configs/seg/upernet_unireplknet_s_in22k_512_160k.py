"""UPerNet with UniRepLKNet-S on ADE20K, 512 crops, ImageNet-22K weights.

A config for it was published; the paper has no figure of it, the authors' README has mIoU 51.9
single-scale and 52.7 multi-scale, the paper's figures for 640 crops. Not trained here.

    bash tools/dist_train.sh configs/seg/upernet_unireplknet_s_in22k_512_160k.py 8
"""

_base_ = './upernet_unireplknet_s_160k.py'

model = dict(backbone=dict(init_cfg=dict(checkpoint='unireplknet_s_in22k_to_in1k')))
