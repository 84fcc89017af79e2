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
FOCAL = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0)
RANGES = ((-1, 16), (16, 32), (32, 64), (64, 1e8))  # of FCOS's training
HEADS = dict(
    RetinaNet=dict(
        type='RetinaHead',
        stacked_convs=1,
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=4,
            scales_per_octave=2,
            ratios=[1.0],
            strides=STRIDES,
        ),
    ),
    ATSS=dict(
        type='ATSSHead',
        norm_cfg=dict(type='BN'),
        stacked_convs=1,
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            strides=STRIDES,
        ),
    ),
    FCOS=dict(
        type='FCOSHead',
        norm_cfg=dict(type='BN'),
        stacked_convs=1,
        strides=STRIDES,
        regress_ranges=RANGES,
    ),
    GFL=dict(
        type='GFLHead',
        norm_cfg=dict(type='BN'),
        stacked_convs=1,
        reg_max=7,
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            strides=STRIDES,
        ),
    ),
    YOLOX=dict(type='YOLOXHead', stacked_convs=1, strides=STRIDES),
)


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


def query_config(kind: str) -> dict:
    """DETR, on one map, or Deformable DETR or DINO, on three."""
    levels = 1 if kind == 'DETR' else 3
    attention = dict(embed_dims=32, num_heads=4, dropout=0.0)
    deformable = dict(embed_dims=32, num_heads=4, num_levels=levels, num_points=2, dropout=0.0)
    feed_forward = dict(embed_dims=32, feedforward_channels=32, ffn_drop=0.0)
    cross = attention if kind == 'DETR' else deformable
    decoder = dict(
        num_layers=2,
        return_intermediate=True,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=cross, ffn_cfg=feed_forward),
    )
    config = dict(
        type=kind,
        num_queries=30,
        data_preprocessor=dict(preprocessor(), pad_size_divisor=1),
        backbone=dict(backbone(), out_indices=(1, 2, 3)[-levels:]),
        neck=dict(
            type='ChannelMapper',
            in_channels=CHANNELS[-levels:],
            kernel_size=1,
            out_channels=32,
            act_cfg=None,
            num_outs=levels,
        ),
        encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=cross, ffn_cfg=feed_forward)),
        decoder=dict(decoder, post_norm_cfg=dict(type='LN') if kind == 'DETR' else None),
        positional_encoding=dict(num_feats=16, normalize=True),
        bbox_head=dict(type=f'{kind}Head', num_classes=CLASSES, embed_dims=32),
        test_cfg=dict(max_per_img=20),
    )
    if kind == 'DETR':  # of its own: mmdet writes into it
        config['bbox_head']['loss_cls'] = dict(
            type='CrossEntropyLoss', bg_cls_weight=0.1, use_sigmoid=False, class_weight=1.0
        )
    else:
        config['bbox_head'].update(sync_cls_avg_factor=True, loss_cls=FOCAL)
        config.update(with_box_refine=True, as_two_stage=kind == 'DINO')
    if kind == 'DINO':
        config['dn_cfg'] = dict(
            label_noise_scale=0.5,
            box_noise_scale=1.0,
            group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=10),
        )
    return config


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
    """A model whose scores, boxes and masks differ from each other."""
    import mmdet.models  # noqa: F401  registers detectors
    from mmdet.registry import MODELS

    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(ConfigDict(config)).eval()
    spread(model)
    return model


def spread(model: nn.Module) -> None:
    """Give necks and heads weights with which scores, boxes and masks differ from each other."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith('backbone') and parameter.dim() > 1:
                fan_in = parameter[0].numel()
                noise = torch.randn(parameter.shape, generator=generator)
                # Scores of 1 in several places would be ranked by chance.
                gain = 0.2 if name.endswith('_cls.weight') and 'fc_cls' not in name else 1.0
                parameter.copy_(noise * gain * (2 / fan_in) ** 0.5)
            elif not name.startswith('backbone') and name.endswith('bias'):
                parameter.zero_()


def pictures(count: int, height: int, width: int) -> np.ndarray:
    """(count, 3, height, width), uint8: coloured rectangles under noise.

    Without noise, places of the same surroundings score exactly alike, and mmdet ranks them by chance.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 80, (count, 3, height, width), dtype=np.uint8)
    for image in images:
        for _ in range(4):
            top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
            below, right = top + rng.integers(8, height // 2), left + rng.integers(8, width // 2)
            image[:, top:below, left:right] //= 4
            image[:, top:below, left:right] += rng.integers(100, 190, (3, 1, 1), dtype=np.uint8)
    return images
