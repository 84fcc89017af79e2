"""The forms in which weights are published, and the weights that a backbone refuses.

The published files cannot be downloaded here. Files of the same form stand in for them, with the
names and shapes of `golden/*_keys.json`, every tensor filled with a number of its own.
"""

import argparse
from pathlib import Path

import pytest
import torch
from helpers import (
    SMALL_ARCH,
    ToyDetector,
    assert_body_loaded,
    detector_weights,
    published_weights,
    save,
    without,
)

from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.state_dict import check_backbone_weights, load_backbone_weights
from unireplknet_mm.models.whole_model import adapt_state_dict
from unireplknet_mm.weights import CheckpointError


def averaged_by_mmdet_2(weights: dict) -> dict:
    return weights | {
        'ema_' + name.replace('.', '_'): torch.zeros_like(value) for name, value in weights.items()
    }


FORMS = {
    'raw, the state dict itself': lambda raw, detector: raw,
    'raw, with arguments': lambda raw, detector: dict(model=raw, args=argparse.Namespace(lr=1)),
    'raw, average only': lambda raw, detector: dict(model_ema=raw, epoch=3),
    'detector': lambda raw, detector: dict(meta=dict(epoch=36), state_dict=detector, optimizer={}),
    'detector, saved by a wrapper': lambda raw, detector: dict(
        state_dict={'module.' + name: value for name, value in detector.items()}
    ),
    'detector, averaged by mmdet 2': lambda raw, detector: dict(
        state_dict=averaged_by_mmdet_2(detector)
    ),
    'detector, averaged by MMEngine': lambda raw, detector: dict(
        state_dict=detector,
        ema_state_dict={'module.' + name: value * 0 for name, value in detector.items()},
    ),
}


@pytest.mark.parametrize('form', FORMS)
def test_a_backbone_is_initialised_from_every_published_form(tmp_path, log, form):
    path = save(tmp_path / 'x.pth', FORMS[form](published_weights('a'), detector_weights('a')))
    backbone = UniRepLKNet('a', init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    backbone.init_weights()
    assert_body_loaded(backbone, published_weights('a'))
    summary = log[-1]
    assert 'UniRepLKNet-A' in summary
    assert str(path) in summary
    if form.startswith('raw'):
        assert torch.equal(backbone.norm3.weight, torch.ones(320))
        assert 'initialised anew: norm0, norm1, norm2, norm3' in summary
        assert 'Not used: head, norm' in summary
    else:
        assert torch.equal(backbone.norm3.weight, torch.full((320,), 10.0))
        assert 'anew' not in summary


@pytest.mark.parametrize('arch', ['a', 'n', 't', 's'])
def test_published_names_fit_the_classifier_of_every_golden_arch(arch):
    with torch.device('meta'):
        backbone = UniRepLKNet(arch, out_indices=(3,), gap_before_final_norm=True)
    raw = without(published_weights(arch), 'head.')
    check_backbone_weights(backbone, raw)
    assert backbone.state_dict().keys() == raw.keys()


def expect_refusal(weights: dict, backbone: UniRepLKNet, message: str, tmp_path: Path) -> None:
    """By each way in: a model's state dict, and a backbone's init_cfg, which also names the file."""
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=message) as info:
        adapt_state_dict(weights, ToyDetector(backbone))
    assert len(str(info.value).splitlines()) <= 2
    path = save(tmp_path / 'x.pth', weights)
    with pytest.raises(CheckpointError, match=message) as info:
        load_backbone_weights(backbone, str(path))
    assert str(path) in str(info.value)
    after = backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize('weights', [published_weights, detector_weights])
def test_another_structure_is_refused(tmp_path, weights):
    expect_refusal(weights('a', 'deploy'), UniRepLKNet('a'), 'deploy=True', tmp_path)
    expect_refusal(weights('a'), UniRepLKNet('a', deploy=True), 'switch_to_deploy', tmp_path)
    deployed = UniRepLKNet('a', deploy=True)
    adapt_state_dict(weights('a', 'deploy'), ToyDetector(deployed))


@pytest.mark.parametrize('weights', [published_weights, detector_weights])
def test_another_arch_is_refused_by_name(tmp_path, weights):
    expect_refusal(
        weights('n'),
        UniRepLKNet('a'),
        r'weights are of UniRepLKNet-N \(depths 2 2 8 2, channels 80 160 320 640\), the model is '
        r'UniRepLKNet-A \(depths 2 2 6 2, channels 40 80 160 320\)',
        tmp_path,
    )
    expect_refusal(
        weights('a'),
        UniRepLKNet(SMALL_ARCH),
        'the model is a UniRepLKNet of depths 1 1 3 1',
        tmp_path,
    )
    # n and t have the same channels: without the check, eight blocks of stage 3 would be filled.
    with torch.device('meta'):
        backbone = UniRepLKNet('t')
    with pytest.raises(CheckpointError, match=r'UniRepLKNet-N .* the model is UniRepLKNet-T '):
        adapt_state_dict(weights('n'), ToyDetector(backbone))


def test_other_kernels_branches_or_parameters_are_refused(tmp_path):
    kernel_sizes = ((3, 3), (13, 13), (13,) * 5 + (11,), (13, 13))
    arch = dict(depths=(2, 2, 6, 2), channels=(40, 80, 160, 320), kernel_sizes=kernel_sizes)
    expect_refusal(published_weights('a'), UniRepLKNet(arch), 'kernel sizes .*13, 11', tmp_path)
    expect_refusal(
        published_weights('a'),
        UniRepLKNet('a', branches={13: ((5, 1), (3, 2))}),
        r'missing \(stages.1.0.dwconv.dil_conv_k3_2.weight, .*surplus .*dil_conv_k7_2',
        tmp_path,
    )
    expect_refusal(
        published_weights('a'),
        UniRepLKNet('a', in_channels=4),
        r'1 of another shape \(downsample_layers.0.0.weight \(20, 3, 3, 3\) instead of \(20, 4, 3, 3\)\)',
        tmp_path,
    )
    expect_refusal(
        without(published_weights('a'), 'stages.3.1.se'),
        UniRepLKNet('a'),
        r'do not match the backbone: 4 missing \(stages.3.1.se.down.weight',
        tmp_path,
    )


@pytest.mark.parametrize(
    ('names', 'network'),
    [
        (['conv1.weight', 'layer1.0.conv1.weight'], "a ResNet's"),
        (['downsample_layers.0.0.weight', 'stages.0.0.pwconv1.weight'], "a ConvNeXt's"),
        (['backbone.stages.0.0.pointwise_conv1.weight'], "a ConvNeXt's"),
        (['layers.0.blocks.0.attn.relative_position_bias_table'], "a Swin Transformer's"),
        (['cls_token', 'blocks.0.attn.qkv.weight'], "a vision transformer's"),
        (['stages.0.blocks.0.large_kernel.lkb_origin.conv.weight'], "a RepLKNet's"),
        (['fc.weight', 'fc.bias', 'x', 'y'], 'are named fc.weight, fc.bias, x, ...'),
    ],
)
def test_weights_of_another_network_are_refused_by_name(tmp_path, names, network):
    weights = {name: torch.ones(1) for name in names}
    message = f'not of a UniRepLKNet: they.* {network}'
    expect_refusal(weights, UniRepLKNet(SMALL_ARCH), message, tmp_path)
