"""The op package in MMEngine: layers by name in mmcv, in models and in checkpoints; messages; its absence."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, randomise, relative_error
from mmcv.cnn import ConvModule, build_conv_layer
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from op_cases import RecordedCalls, reason_to_skip
from torch import nn

from unireplknet_mm import ops
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.ops import DepthwiseConv2d, DepthWiseConv2dImplicitGEMM

ROOT = Path(__file__).parents[1]
needs_op = pytest.mark.skipif(reason_to_skip('cpu') is not None, reason='no compiled op')


@pytest.mark.parametrize('name', ops.__all__)
def test_public_names_are_those_of_the_op_package(name):
    import unireplknet_ops

    assert getattr(ops, name) is getattr(unireplknet_ops, name)


@pytest.mark.parametrize('level', [logging.DEBUG, logging.WARNING])
def test_messages_reach_the_current_logger_of_mmengine(caplog, level):
    logger = MMLogger.get_instance(f'test_ops_{level}')  # the last one made is the current one
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.WARNING)
    ops.library.logger.log(level, 'a message of %s', 'the op')
    expected = [(logger.name, level, 'a message of the op')] if level == logging.WARNING else []
    assert [record for record in caplog.record_tuples if record[0] == logger.name] == expected


def test_user_errors_are_those_of_the_op_package():
    from unireplknet_mm.errors import UserError
    from unireplknet_ops import UserError as of_the_op

    assert UserError is of_the_op


def test_a_missing_op_package_is_named():
    code = """
import sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name == 'unireplknet_ops':
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Absent)
import unireplknet_mm
"""
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=os.environ | {'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'ModuleNotFoundError: unireplknet_mm needs the package unireplknet_ops: in the checkout, '
        'pip install -e ./ops -e ., or put its folder ops/ on PYTHONPATH too'
    )


@pytest.mark.parametrize('name', ['DepthwiseConv2d', 'DepthWiseConv2dImplicitGEMM'])
def test_init_cfg_finds_the_registered_layers(name):
    states = []
    for conv_cfg in (None, dict(type=name)):
        network = UniRepLKNet(SMALL_ARCH, conv_cfg=conv_cfg)
        torch.manual_seed(0)
        network.init_weights()
        states.append(network.state_dict())
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.mark.parametrize('name', ['DepthwiseConv2d', 'DepthWiseConv2dImplicitGEMM'])
@pytest.mark.parametrize('scope', [None, 'mmpretrain', 'mmdet', 'mmseg'])
def test_build_conv_layer(name, scope):
    with DefaultScope.overwrite_default_scope(scope):
        conv = build_conv_layer(
            dict(type=name), 8, 8, 13, stride=1, padding=6, groups=8, bias=False
        )
    assert type(conv) is getattr(ops, name)
    assert conv.weight.shape == (8, 1, 13, 13) and conv.bias is None
    x = torch.randn(1, 8, 14, 14)
    expected = nn.functional.conv2d(x, conv.weight, padding=6, groups=8)
    assert torch.allclose(conv(x), expected, atol=1e-5)


def test_build_conv_layer_passes_the_implementation():
    for name in ('DepthwiseConv2d', 'DepthWiseConv2dImplicitGEMM'):
        conv = build_conv_layer(
            dict(type=name, implementation='native'), 8, 8, 5, padding=2, groups=8
        )
        assert isinstance(conv, DepthwiseConv2d) and conv.implementation == 'native'
        assert conv.bias is not None


@pytest.mark.parametrize('name', ['DepthwiseConv2d', 'DepthWiseConv2dImplicitGEMM'])
def test_other_convolutions_of_a_conv_cfg_are_nn_conv2d(name):
    conv = build_conv_layer(dict(type=name), 8, 16, 3, stride=2, padding=1)
    assert type(conv) is nn.Conv2d and conv.stride == (2, 2)


def test_in_mmcvs_conv_module():
    cfg = dict(type='DepthWiseConv2dImplicitGEMM')
    module = ConvModule(8, 8, 7, padding=3, groups=8, conv_cfg=cfg, norm_cfg=dict(type='BN'))
    assert type(module.conv) is DepthWiseConv2dImplicitGEMM and module.conv.bias is None
    assert module(torch.randn(2, 8, 9, 9)).shape == (2, 8, 9, 9)


@needs_op
@pytest.mark.parametrize('name', ['DepthwiseConv2d', 'DepthWiseConv2dImplicitGEMM'])
def test_conv_cfg_of_an_mmpretrain_model(monkeypatch, name):
    """Its depthwise convolutions of stride 1 become the op, the others stay; the numbers stay too."""
    monkeypatch.setenv('UNIREPLKNET_DWCONV', 'op')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        config = dict(type='MobileNetV2', widen_factor=0.25, out_indices=(7,))
        plain = MODELS.build(config)
        model = MODELS.build({**config, 'conv_cfg': dict(type=name)})
    model.load_state_dict(randomise(plain).state_dict())
    convolutions = [m for m in plain.modules() if isinstance(m, nn.Conv2d)]
    depthwise = [m for m in convolutions if m.groups > 1 and m.stride == (1, 1)]
    replaced = [m for m in model.modules() if isinstance(m, DepthwiseConv2d)]
    assert len(replaced) == len(depthwise) > 5
    for network in (plain, model):
        network.eval()
    x = torch.randn(2, 3, 64, 64)
    with RecordedCalls() as calls:
        (output,) = model(x)
    assert calls.implementations().count('op') == len(depthwise)
    (expected,) = plain(x)
    assert relative_error(output, expected) < 1e-5


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
@pytest.mark.parametrize('deploy', [False, True])
def test_a_checkpoint_moves_between_op_and_native(device, deploy):
    if (reason := reason_to_skip(device)) is not None:
        pytest.skip(reason)
    networks = {}
    for implementation in ('native', 'op'):
        conv_cfg = dict(type='DepthwiseConv2d', implementation=implementation)
        networks[implementation] = UniRepLKNet(SMALL_ARCH, conv_cfg=conv_cfg).to(device)
    networks['plain'] = UniRepLKNet(SMALL_ARCH, conv_cfg=None).to(device)
    state = randomise(networks['native']).state_dict()
    x = torch.randn(2, 3, 64, 96, device=device)
    outputs, gradients = {}, {}
    for name, network in networks.items():
        network.load_state_dict(state, strict=True)
        network.eval()
        if deploy:
            network.switch_to_deploy()
        features = network(x)
        sum(feature.square().mean() for feature in features).backward()
        outputs[name] = torch.cat([feature.flatten() for feature in features])
        gradients[name] = torch.cat([p.grad.flatten() for p in network.parameters()])
    for name in ('op', 'plain'):
        assert relative_error(outputs[name], outputs['native']) < 1e-5
        assert relative_error(gradients[name], gradients['native']) < 1e-4
    replaced = [m for m in networks['op'].modules() if isinstance(m, DepthwiseConv2d)]
    assert replaced and all(conv.implementation == 'op' for conv in replaced)
    assert not any(isinstance(m, DepthwiseConv2d) for m in networks['plain'].modules())
    back = {name: value.cpu() for name, value in networks['op'].state_dict().items()}
    networks['native'].load_state_dict(back, strict=True)
