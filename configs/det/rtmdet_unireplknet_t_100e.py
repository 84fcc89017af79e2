"""RTMDet with UniRepLKNet-T on COCO, 100 epochs, ImageNet-1K weights.

The paper does not have it, and it was not trained here. The recipe is that of mmdet's RTMDet-L with
ConvNeXt-B, drop path and layer decay are those of T's published detector.

    bash tools/dist_train.sh configs/det/rtmdet_unireplknet_t_100e.py 4
"""

_base_ = [
    '../_base_/models/rtmdet.py',
    '../_base_/datasets/coco_detection_640.py',
    '../_base_/schedules/rtmdet_100e.py',
    '../_base_/det_runtime.py',
]

model = dict(
    backbone=dict(
        arch='t',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='unireplknet_t_in1k'),
    ),
    neck=dict(in_channels=[160, 320, 640]),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
custom_hooks = [
    _base_.average_hook,
    dict(
        type='PipelineSwitchHook',
        switch_epoch=90,
        switch_pipeline=_base_.train_pipeline_stage2,
    ),
]
