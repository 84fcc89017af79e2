"""DeepLabv3+ with MobileNet V2 with 3×3 kernels on Cityscapes (paper, Table 2c).

Paper: mIoU 72.31. Not reproduced here.

The rest are mmseg's default settings, as in the paper (§3.1.2). It starts from what
`mobilenet_v2_in1k.py` leaves; the configs of the other rows inherit it.

    bash tools/dist_train.sh configs/studies/mobilenet_v2_cityscapes.py 4
"""

_base_ = [
    '../_base_/models/deeplabv3plus_mobilenet_v2.py',
    '../_base_/datasets/cityscapes.py',
    '../_base_/schedules/cityscapes_80k.py',
    '../_base_/seg_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/mobilenet_v2_in1k/epoch_100.pth')
    ),
)
