"""Mask2Former's pixel decoder in the form that is recorded, beside mmdet's own."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

import unireplknet_mm  # noqa: F401  registers what mmdet's layers need of mmcv
from unireplknet_mm.export.pixel_decoder import RecordablePixelDecoder
from unireplknet_mm.export.rewriting import record_pixel_decoders

SIZES = [(24, 40), (12, 20), (6, 10), (3, 5)]


@pytest.fixture
def decoder():
    import mmdet.models  # noqa: F401  registers layers
    from mmdet.registry import MODELS

    attention = dict(embed_dims=32, num_heads=4, num_levels=3, num_points=2)
    config = dict(
        type='MSDeformAttnPixelDecoder',
        in_channels=[8, 16, 24, 32],
        strides=[4, 8, 16, 32],
        feat_channels=32,
        out_channels=32,
        num_outs=3,
        norm_cfg=dict(type='GN', num_groups=8),
        act_cfg=dict(type='ReLU'),
        encoder=dict(
            num_layers=2,
            layer_cfg=dict(
                self_attn_cfg=dict(attention, dropout=0.0, batch_first=True),
                ffn_cfg=dict(embed_dims=32, feedforward_channels=32, num_fcs=2, ffn_drop=0.0),
            ),
        ),
        positional_encoding=dict(num_feats=16, normalize=True),
    )
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        module = MODELS.build(ConfigDict(config)).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


def maps(count):
    channels = (8, 16, 24, 32)
    return tuple(torch.randn(count, c, *size) for c, size in zip(channels, SIZES, strict=True))


@torch.no_grad()
def test_it_computes_the_same(decoder):
    x = maps(2)
    mask, levels = RecordablePixelDecoder(decoder)(x)
    expected_mask, expected_levels = decoder(x)
    torch.testing.assert_close(mask, expected_mask, rtol=1e-4, atol=1e-4)
    assert [level.shape for level in levels] == [level.shape for level in expected_levels]
    torch.testing.assert_close(levels, expected_levels, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_is_put_in_the_place_of_mmdet_s_and_recorded(decoder):
    model = nn.Sequential(decoder)
    x = maps(1)
    expected, _ = model(x)
    assert record_pixel_decoders(model) == 1
    program = torch.export.export(model, (x,), strict=False).module()
    torch.testing.assert_close(program(x)[0], expected, rtol=1e-4, atol=1e-4)
