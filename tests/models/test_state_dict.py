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
from unireplknet_mm.models.state_dict import (
    check_backbone_weights,
    extract_backbone_state_dict,
    load_backbone_weights,
)
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
    with pytest.raises(CheckpointError) as info:
        adapt_state_dict(weights, ToyDetector(backbone))
    assert str(info.value) == message
    path = save(tmp_path / 'x.pth', weights)
    with pytest.raises(CheckpointError) as info:
        load_backbone_weights(backbone, str(path))
    assert str(info.value) == f'checkpoint {path}: {message}'
    after = backbone.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize('weights', [published_weights, detector_weights])
def test_another_structure_is_refused(tmp_path, weights):
    expect_refusal(
        weights('a', 'deploy'),
        UniRepLKNet('a'),
        'the weights are re-parameterized (deploy form) and the backbone is in its training form: build it '
        'with deploy=True, or load the weights from training',
        tmp_path,
    )
    expect_refusal(
        weights('a'),
        UniRepLKNet('a', deploy=True),
        'the weights are in the training form and the backbone was built with deploy=True: build it with '
        'deploy=False, load the weights, then call switch_to_deploy()',
        tmp_path,
    )
    deployed = UniRepLKNet('a', deploy=True)
    adapt_state_dict(weights('a', 'deploy'), ToyDetector(deployed))


A = 'UniRepLKNet-A (depths 2 2 6 2, channels 40 80 160 320)'
N = 'UniRepLKNet-N (depths 2 2 8 2, channels 80 160 320 640)'
T = 'UniRepLKNet-T (depths 3 3 18 3, channels 80 160 320 640)'
SMALL = 'a UniRepLKNet of depths 1 1 3 1, channels 8 16 24 32'


def other_arch(of_weights: str, of_model: str) -> str:
    return (
        f'the weights are of {of_weights}, the model is {of_model}: set `arch` of the backbone, or take '
        'other weights'
    )


@pytest.mark.parametrize('weights', [published_weights, detector_weights])
def test_another_arch_is_refused_by_name(tmp_path, weights):
    expect_refusal(weights('n'), UniRepLKNet('a'), other_arch(N, A), tmp_path)
    expect_refusal(weights('a'), UniRepLKNet(SMALL_ARCH), other_arch(A, SMALL), tmp_path)
    # n and t have the same channels: without the check, eight blocks of stage 3 would be filled.
    with torch.device('meta'):
        backbone = UniRepLKNet('t')
    with pytest.raises(CheckpointError) as info:
        adapt_state_dict(weights('n'), ToyDetector(backbone))
    assert str(info.value) == other_arch(N, T)


def test_other_kernels_branches_or_parameters_are_refused(tmp_path):
    kernel_sizes = ((3, 3), (13, 13), (13,) * 5 + (11,), (13, 13))
    arch = dict(depths=(2, 2, 6, 2), channels=(40, 80, 160, 320), kernel_sizes=kernel_sizes)
    of_a = ((3, 3), (13, 13), (13,) * 6, (13, 13))
    expect_refusal(
        published_weights('a'),
        UniRepLKNet(arch),
        f'the weights have kernel sizes {of_a}, the model {kernel_sizes}: set `arch["kernel_sizes"]` of '
        'the backbone',
        tmp_path,
    )
    # Ten large blocks: two branches of five are the same in none, one of them is new.
    block = 'stages.1.0.dwconv'
    expect_refusal(
        published_weights('a'),
        UniRepLKNet('a', branches={13: ((5, 1), (3, 2))}),
        'the weights do not match the backbone: '
        f'50 missing ({block}.dil_conv_k3_2.weight, {block}.dil_bn_k3_2.weight, '
        f'{block}.dil_bn_k3_2.bias, ...); '
        f'200 surplus ({block}.dil_conv_k7_2.weight, {block}.dil_bn_k7_2.weight, '
        f'{block}.dil_bn_k7_2.bias, ...)',
        tmp_path,
    )
    expect_refusal(
        published_weights('a'),
        UniRepLKNet('a', in_channels=4),
        'the weights do not match the backbone: 1 of another shape (downsample_layers.0.0.weight '
        '(20, 3, 3, 3) instead of (20, 4, 3, 3))',
        tmp_path,
    )
    squeeze = 'stages.3.1.se'
    expect_refusal(
        without(published_weights('a'), squeeze),
        UniRepLKNet('a'),
        f'the weights do not match the backbone: 4 missing ({squeeze}.down.weight, {squeeze}.down.bias, '
        f'{squeeze}.up.weight, ...)',
        tmp_path,
    )


@pytest.mark.parametrize(
    ('names', 'network'),
    [
        (['conv1.weight', 'layer1.0.conv1.weight'], 'ResNet'),
        (['downsample_layers.0.0.weight', 'stages.0.0.pwconv1.weight'], 'ConvNeXt'),
        (['backbone.stages.0.0.pointwise_conv1.weight'], 'ConvNeXt'),
        (['layers.0.blocks.0.attn.relative_position_bias_table'], 'Swin Transformer'),
        (['cls_token', 'blocks.0.attn.qkv.weight'], 'vision transformer'),
        (['stages.0.blocks.0.large_kernel.lkb_origin.conv.weight'], 'RepLKNet'),
        (['levels.0.blocks.0.dcn.offset.weight'], 'InternImage'),
    ],
)
def test_weights_of_another_network_are_refused_by_name(tmp_path, names, network):
    weights = {name: torch.ones(1) for name in names}
    message = (
        f"the weights are not of a UniRepLKNet: they look like a {network}'s ({', '.join(names)})"
    )
    expect_refusal(weights, UniRepLKNet(SMALL_ARCH), message, tmp_path)


def test_weights_of_an_unknown_network_are_refused(tmp_path):
    weights = dict.fromkeys(('fc.weight', 'fc.bias', 'x', 'y'), torch.ones(1))
    expect_refusal(
        weights,
        UniRepLKNet(SMALL_ARCH),
        'the weights are not of a UniRepLKNet: they are named fc.weight, fc.bias, x, ...',
        tmp_path,
    )


def test_no_weights_at_all():
    for content, held in (({}, 'nothing'), (dict(epoch=1, lr=2), 'epoch, lr')):
        with pytest.raises(CheckpointError) as info:
            extract_backbone_state_dict(content)
        assert str(info.value) == f'no weights in the checkpoint: it holds {held}'
