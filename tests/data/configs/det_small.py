"""The COCO recipe on small images, with a backbone and heads that train on a CPU in seconds."""

_base_ = '../../../configs/det/cascade_unireplknet_t_3x.py'

channels = 16
arch = dict(_delete_=True, depths=(1, 1, 3, 1), channels=(8, 16, 24, 32), kernel_sizes=(3, 7, 7, 7))
small = dict(in_channels=channels, conv_out_channels=channels)
model = dict(
    backbone=dict(arch=arch, init_cfg=None),
    neck=dict(in_channels=[8, 16, 24, 32], out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=[
            dict(head, fc_out_channels=32, **small) for head in _base_.model.roi_head.bbox_head
        ],
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=small,
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=100, max_per_img=50),
        rcnn=[
            dict(stage, sampler=dict(stage.sampler, num=32))
            for stage in _base_.model.train_cfg.rcnn
        ],
    ),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=50)),
)

scales = [(96, 160), (128, 160)]
whole, cropped = _base_.train_pipeline[3].transforms
whole[0].scales = cropped[0].scales = cropped[2].scales = scales
cropped[1].crop_size = (64, 96)
_base_.test_pipeline[1].scale = (160, 96)
train_dataloader = dict(dataset=dict(pipeline=_base_.train_pipeline))
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(pipeline=_base_.test_pipeline)
)
test_dataloader = val_dataloader
