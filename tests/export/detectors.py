"""Small detectors with random weights whose scores and boxes vary."""

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

import unireplknet_mm  # noqa: F401  registers the backbone, and provides ops to mmcv

CHANNELS = [8, 16, 24, 32]
WIDTH = 16
CLASSES = 3
STRIDES = [4, 8, 16, 32]


def region_config(stages: int) -> dict:
    """Mask R-CNN with one stage, Cascade Mask R-CNN with several."""

    def align(size: int) -> dict:
        return dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=size, sampling_ratio=0),
            out_channels=WIDTH,
            featmap_strides=STRIDES[:3],
        )

    box_head = dict(
        type='Shared2FCBBoxHead',
        in_channels=WIDTH,
        fc_out_channels=32,
        roi_feat_size=7,
        num_classes=CLASSES,
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
        reg_class_agnostic=False,
    )
    mask_head = dict(
        type='FCNMaskHead',
        num_convs=1,
        in_channels=WIDTH,
        conv_out_channels=WIDTH,
        num_classes=CLASSES,
    )
    is_cascade = stages > 1
    return dict(
        type='CascadeRCNN' if is_cascade else 'MaskRCNN',
        data_preprocessor=preprocessor(),
        backbone=backbone(),
        neck=dict(type='FPN', in_channels=CHANNELS, out_channels=WIDTH, num_outs=4),
        rpn_head=dict(
            type='RPNHead',
            in_channels=WIDTH,
            feat_channels=WIDTH,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=STRIDES
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
        train_cfg=None,
        roi_head=dict(
            type='CascadeRoIHead' if is_cascade else 'StandardRoIHead',
            **dict(num_stages=stages, stage_loss_weights=[1] * stages) if is_cascade else {},
            bbox_roi_extractor=align(7),
            bbox_head=[box_head] * stages if is_cascade else box_head,
            mask_roi_extractor=align(14),
            mask_head=mask_head,
        ),
        test_cfg=dict(
            rpn=dict(
                nms_pre=50,
                max_per_img=40,
                nms=dict(type='nms', iou_threshold=0.7),
                min_bbox_size=0,
            ),
            rcnn=dict(
                score_thr=0.3,
                nms=dict(type='nms', iou_threshold=0.5),
                max_per_img=20,
                mask_thr_binary=0.5,
            ),
        ),
    )


def one_stage_config(head: dict, **test_cfg) -> dict:
    """A detector with one dense head on an FPN of four levels."""
    return dict(
        type='SingleStageDetector',
        data_preprocessor=preprocessor(),
        backbone=backbone(),
        neck=dict(type='FPN', in_channels=CHANNELS, out_channels=WIDTH, num_outs=4),
        bbox_head=dict(num_classes=CLASSES, in_channels=WIDTH, feat_channels=WIDTH, **head),
        test_cfg=dict(
            nms_pre=50,
            min_bbox_size=0,
            score_thr=0.3,
            nms=dict(type='nms', iou_threshold=0.6),
            max_per_img=20,
            **test_cfg,
        ),
    )


def preprocessor() -> dict:
    return dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    )


def backbone() -> dict:
    return dict(
        type='UniRepLKNet',
        arch=dict(depths=(1, 1, 1, 1), channels=CHANNELS),
        out_indices=(0, 1, 2, 3),
        deploy=True,
    )


def build(config: dict) -> nn.Module:
    """With weights large enough that scores, boxes and masks differ from each other."""
    import mmdet.models  # noqa: F401  registers detectors
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(ConfigDict(config)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith('backbone') and parameter.dim() > 1:
                fan_in = parameter[0].numel()
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * (2 / fan_in) ** 0.5)
            elif not name.startswith('backbone') and name.endswith('bias'):
                parameter.zero_()
    return model


def pictures(count: int, height: int, width: int) -> np.ndarray:
    """(count, 3, height, width), uint8: coloured rectangles on noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 80, (count, 3, height, width), dtype=np.uint8)
    for image in images:
        for _ in range(4):
            top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
            below, right = top + rng.integers(8, height // 2), left + rng.integers(8, width // 2)
            image[:, top:below, left:right] = rng.integers(100, 256, (3, 1, 1))
    return images
