"""Necks and heads that take other maps than they get are named, and right ones left alone."""

import pytest
import torch
from helpers import SMALL_ARCH
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from unireplknet_mm.errors import UserError
from unireplknet_mm.launch.channels import check_channels
from unireplknet_mm.launch.runner import build_runner

WIDTHS = [8, 16, 24, 32]  # of SMALL_ARCH
BACKBONE = dict(type='UniRepLKNet', arch=SMALL_ARCH)
FPN = dict(type='FPN', in_channels=WIDTHS, out_channels=16, num_outs=5)
ANCHORS = dict(
    anchor_generator=dict(
        type='AnchorGenerator', scales=[8], ratios=[1.0], strides=[4, 8, 16, 32, 64]
    ),
    bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
)
RETINA = dict(type='RetinaHead', num_classes=2, in_channels=16, feat_channels=16, **ANCHORS)
BATCH_NORM = dict(type='BN')
UPER = dict(
    type='UPerHead',
    in_channels=WIDTHS,
    in_index=[0, 1, 2, 3],
    channels=16,
    num_classes=3,
    norm_cfg=BATCH_NORM,
)
FCN = dict(
    type='FCNHead', in_channels=24, in_index=2, channels=8, num_classes=3, norm_cfg=BATCH_NORM
)


def build(scope: str, **model) -> nn.Module:
    pytest.importorskip(f'{scope}.models')
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(ConfigDict(model))


def detector(neck=FPN, bbox_head=RETINA, backbone=BACKBONE) -> nn.Module:
    return build('mmdet', type='RetinaNet', backbone=backbone, neck=neck, bbox_head=bbox_head)


def two_stages(extractor_channels=16, head_channels=16) -> nn.Module:
    extractor = dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
        out_channels=extractor_channels,
        featmap_strides=[4, 8, 16, 32],
    )
    bbox_head = dict(
        type='Shared2FCBBoxHead',
        in_channels=head_channels,
        fc_out_channels=8,
        roi_feat_size=7,
        num_classes=2,
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
    )
    return build(
        'mmdet',
        type='FasterRCNN',
        backbone=BACKBONE,
        neck=FPN,
        rpn_head=dict(type='RPNHead', in_channels=16, feat_channels=16, **ANCHORS),
        roi_head=dict(type='StandardRoIHead', bbox_roi_extractor=extractor, bbox_head=bbox_head),
        train_cfg=None,
        test_cfg=dict(rpn={}, rcnn={}),
    )


def segmenter(decode_head=UPER, auxiliary_head=FCN, **more) -> nn.Module:
    return build(
        'mmseg',
        type='EncoderDecoder',
        backbone=BACKBONE | more.pop('backbone', {}),
        decode_head=decode_head,
        auxiliary_head=auxiliary_head,
        **more,
    )


def classifier(in_channels=32) -> nn.Module:
    return build(
        'mmpretrain',
        type='ImageClassifier',
        backbone=BACKBONE | dict(out_indices=(3,), gap_before_final_norm=True),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=in_channels),
    )


def mask_former(in_channels=WIDTHS) -> nn.Module:
    """A head whose pixel decoder sees the maps, as those of MaskFormer and Mask2Former."""
    model = nn.Module()
    model.backbone = MODELS.build(BACKBONE)
    model.panoptic_head = nn.Module()
    model.panoptic_head.pixel_decoder = build(
        'mmdet',
        type='PixelDecoder',
        in_channels=in_channels,
        feat_channels=8,
        out_channels=8,
        norm_cfg=dict(type='GN', num_groups=4),
    )
    return model


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (
            lambda: detector(neck=FPN | dict(in_channels=[256, 512, 1024, 2048])),
            'model.neck (FPN) takes 4 maps of 256, 512, 1024, 2048 channels, but model.backbone '
            '(UniRepLKNet) gives 4 maps of 8, 16, 24, 32 channels.\n'
            'Set in_channels=[8, 16, 24, 32] of model.neck.',
        ),
        (
            lambda: detector(
                backbone=BACKBONE | dict(out_indices=(1, 2, 3)),
                neck=dict(
                    type='YOLOV3Neck',
                    num_scales=3,
                    in_channels=[1024, 512, 256],
                    out_channels=[8, 8, 8],
                ),
            ),
            'model.neck (YOLOV3Neck) takes 3 maps of 1024, 512, 256 channels, but model.backbone '
            '(UniRepLKNet) gives 3 maps of 16, 24, 32 channels.\n'
            'Set in_channels=[32, 24, 16] of model.neck.',
        ),
        (
            lambda: detector(backbone=BACKBONE | dict(out_indices=(1, 2, 3))),
            'model.neck (FPN) takes 4 maps of 8, 16, 24, 32 channels, but model.backbone (UniRepLKNet) '
            'gives 3 maps of 16, 24, 32 channels.\n'
            'Set in_channels=[16, 24, 32] of model.neck, or other out_indices of the backbone.',
        ),
        (
            lambda: detector(
                neck=[
                    FPN,
                    dict(type='BFP', in_channels=24, num_levels=5, refine_type='conv'),
                ]
            ),
            'model.neck[1] (BFP) takes a map of 24 channels, but model.neck[0] (FPN) gives a map of 16 '
            'channels.\nSet in_channels=16 of model.neck[1].',
        ),
        (
            lambda: detector(bbox_head=RETINA | dict(in_channels=256)),
            'model.bbox_head (RetinaHead) takes a map of 256 channels, but model.neck (FPN) gives a map of '
            '16 channels.\nSet in_channels=16 of model.bbox_head.',
        ),
        (
            lambda: two_stages(extractor_channels=256),
            'model.roi_head.bbox_roi_extractor (SingleRoIExtractor) takes maps of 256 channels, but '
            'model.neck (FPN) gives 16, 16, 16, 16.\nSet out_channels of '
            'model.roi_head.bbox_roi_extractor, and in_channels of model.roi_head.bbox_head, to that of the '
            'maps.',
        ),
        (
            lambda: two_stages(head_channels=256),
            'model.roi_head.bbox_head (Shared2FCBBoxHead) takes a map of 256 channels, but '
            'model.roi_head.bbox_roi_extractor (SingleRoIExtractor) gives a map of 16 channels.\n'
            'Set in_channels=16 of model.roi_head.bbox_head.',
        ),
        (
            lambda: segmenter(decode_head=UPER | dict(in_channels=[96, 192, 384, 768])),
            'model.decode_head (UPerHead) takes 4 maps of 96, 192, 384, 768 channels, but model.backbone '
            '(UniRepLKNet) gives 4 maps of 8, 16, 24, 32 channels.\n'
            'Set in_channels=[8, 16, 24, 32] of model.decode_head.',
        ),
        (
            lambda: segmenter(auxiliary_head=[FCN, FCN | dict(in_index=3)]),
            'model.auxiliary_head[1] (FCNHead) takes a map of 24 channels, but model.backbone (UniRepLKNet) '
            'gives a map of 32 channels.\nSet in_channels=32 of model.auxiliary_head[1].',
        ),
        (
            lambda: segmenter(
                backbone=dict(out_indices=(3,)), decode_head=FCN, auxiliary_head=None
            ),
            'model.decode_head (FCNHead) takes the maps in_index=2, but model.backbone (UniRepLKNet) gives '
            '1, of 32 channels.\nSet in_index to those that there are, or out_indices of the backbone to '
            'those that are wanted.',
        ),
        (
            lambda: segmenter(
                decode_head=FCN
                | dict(in_index=[2, 3], in_channels=[24, 24], input_transform='resize_concat')
            ),
            'model.decode_head (FCNHead) does not take what model.backbone (UniRepLKNet) gives, 2 maps of '
            '24, 32 channels: its layer convs.0.conv (Conv2d) expects 48 channels and gets 56.\n'
            'Set the channels of model.decode_head to fit.',
        ),
        (
            lambda: classifier(in_channels=768),
            'model.head (LinearClsHead) takes a map of 768 channels, but model.backbone (UniRepLKNet) gives '
            'a map of 32 channels.\nSet in_channels=32 of model.head.',
        ),
        (
            lambda: mask_former(in_channels=[256, 512, 1024, 2048]),
            'model.panoptic_head (PixelDecoder) takes 4 maps of 256, 512, 1024, 2048 '
            'channels, but model.backbone (UniRepLKNet) gives 4 maps of 8, 16, 24, 32 channels.\n'
            'Set in_channels=[8, 16, 24, 32] of model.panoptic_head.',
        ),
    ],
)
def test_a_part_that_does_not_fit_is_named(make, message):
    with pytest.raises(UserError) as info:
        check_channels(make())
    assert str(info.value) == message


@pytest.mark.parametrize(
    'make',
    [
        detector,
        lambda: detector(neck=[FPN, dict(type='BFP', in_channels=16, num_levels=5)]),
        two_stages,
        segmenter,
        classifier,
        mask_former,
    ],
)
def test_what_fits_is_left_as_it_was(make):
    model = make().train()
    model.backbone.stages[0].eval()
    modes = {name: part.training for name, part in model.named_modules()}
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check_channels(model)
    assert torch.equal(torch.rand(2), expected)
    assert modes == {name: part.training for name, part in model.named_modules()}
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize('channels', [[16], WIDTHS[::-1]])
def test_channels_that_a_part_does_not_keep_are_read_in_the_config(channels):
    neck = dict(type='ChannelMapper', in_channels=channels, out_channels=16)
    model = detector(neck=[neck])
    count = 'a map of' if len(channels) == 1 else '4 maps of'
    with pytest.raises(UserError) as info:
        check_channels(model, config=dict(neck=[neck]))
    assert str(info.value).startswith(
        f'model.neck[0] (ChannelMapper) takes {count} {", ".join(map(str, channels))} channels, but '
        'model.backbone (UniRepLKNet) gives 4 maps of 8, 16, 24, 32 channels.\n'
        'Set in_channels=[8, 16, 24, 32] of model.neck[0]'
    )


def test_the_input_may_have_other_channels():
    model = build(
        'mmpretrain',
        type='ImageClassifier',
        backbone=BACKBONE | dict(in_channels=1, out_indices=(3,), gap_before_final_norm=True),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=31),
    )
    with pytest.raises(UserError, match='takes a map of 31 channels'):
        check_channels(model, channels=1)


def test_reversed_maps_are_no_mistake():
    """YOLOv3's neck takes them from the smallest to the largest."""
    neck = dict(type='YOLOV3Neck', num_scales=3, in_channels=[32, 24, 16], out_channels=[16, 12, 8])
    pytest.importorskip('mmdet.models')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = nn.Module()
        model.backbone = MODELS.build(BACKBONE | dict(out_indices=(1, 2, 3)))
        model.neck = MODELS.build(neck)
        check_channels(model)
        model.neck = MODELS.build(neck | dict(in_channels=[16, 24, 32]))
        with pytest.raises(UserError, match='expects 16 channels and gets 32'):
            check_channels(model)


class Wild(nn.Module):
    """A part that fails for reasons of its own."""

    in_channels = 7

    def forward(self, maps):
        raise RuntimeError('not now')


def test_other_failures_are_left_to_the_training():
    model = nn.Module()
    model.backbone = MODELS.build(BACKBONE)
    model.neck = Wild()
    model.bbox_head = Wild()
    check_channels(model)
    model.backbone = Wild()
    check_channels(model)
    check_channels(nn.Linear(3, 3))


def test_a_runner_is_refused_before_its_first_iteration(tmp_path):
    pytest.importorskip('mmpretrain.models')
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            work_dir=str(tmp_path),
            experiment_name='channels',
            model=dict(
                type='ImageClassifier',
                backbone=BACKBONE | dict(out_indices=(3,), gap_before_final_norm=True),
                head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
            ),
        )
    )
    with pytest.raises(UserError, match='takes a map of 64 channels'):
        build_runner(cfg)
