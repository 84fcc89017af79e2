"""Layers by name, with mmcv and without it: the same layers, the same network, the same messages."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, randomise
from mmcv.cnn.bricks import DropPath as MmcvDropPath
from mmengine.registry import Registry
from torch import nn

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models import UniRepLKNet, layers
from unireplknet_mm.models.layers import DropPath, build_conv_layer, build_norm_layer

ROOT = Path(__file__).parents[2]
HIDDEN = ('mmcv', 'mmdet', 'mmseg', 'mmpretrain')


@pytest.fixture(params=['with mmcv', 'without mmcv'])
def mmcv(request, monkeypatch):
    if request.param == 'without mmcv':
        monkeypatch.setattr(layers, 'HAS_MMCV', False)
        monkeypatch.setattr(layers, 'MODELS', Registry('nothing is registered'))
    return request.param


def assert_same_layer(actual: nn.Module, expected: nn.Module) -> None:
    assert isinstance(actual, type(expected))  # mmcv's SyncBN is MMEngine's subclass of torch's
    assert str(actual) == str(expected)
    frozen = [parameter.requires_grad for parameter in actual.parameters()]
    assert frozen == [parameter.requires_grad for parameter in expected.parameters()]


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize(
    'conv_cfg',
    [None, dict(type='Conv2d', padding_mode='reflect'), dict(type=nn.Conv2d)],
    ids=str,
)
def test_convolutions(mmcv, conv_cfg, bias):
    conv = build_conv_layer(conv_cfg, 4, 8, 3, padding=1, groups=4, bias=bias)
    more = {key: value for key, value in (conv_cfg or {}).items() if key != 'type'}
    assert_same_layer(conv, nn.Conv2d(4, 8, 3, padding=1, groups=4, bias=bias, **more))


@pytest.mark.parametrize(
    ('norm_cfg', 'expected'),
    [
        (dict(type='BN'), nn.BatchNorm2d(4)),
        (dict(type='BN2d', eps=1e-3, momentum=0.5), nn.BatchNorm2d(4, eps=1e-3, momentum=0.5)),
        (dict(type='SyncBN', requires_grad=True), nn.SyncBatchNorm(4)),
        (dict(type='BN', requires_grad=False), nn.BatchNorm2d(4).requires_grad_(False)),
        (dict(type='SyncBN', requires_grad=False), nn.SyncBatchNorm(4).requires_grad_(False)),
        (dict(type=nn.BatchNorm2d), nn.BatchNorm2d(4)),
    ],
    ids=str,
)
def test_norms(mmcv, norm_cfg, expected):
    before = dict(norm_cfg)
    assert_same_layer(build_norm_layer(norm_cfg, 4), expected)
    assert norm_cfg == before


@pytest.mark.parametrize(
    ('build', 'cfg', 'message'),
    [
        (
            build_norm_layer,
            dict(type='NoNorm'),
            "norm_cfg={'type': 'NoNorm'} names no layer that is registered: use BN, SyncBN, BN2d",
        ),
        (
            build_conv_layer,
            dict(type='NoConv'),
            "conv_cfg={'type': 'NoConv'} names no layer that is registered: use Conv2d, Conv",
        ),
        (build_norm_layer, None, 'norm_cfg must be a dict with a type, got None'),
        (build_norm_layer, 'BN', "norm_cfg must be a dict with a type, got 'BN'"),
        (
            build_norm_layer,
            dict(momentum=0.1),
            "norm_cfg must be a dict with a type, got {'momentum': 0.1}",
        ),
    ],
)
def test_layers_that_cannot_be_built_are_named(mmcv, build, cfg, message):
    arguments = (4,) if build is build_norm_layer else (4, 8, 3)
    with pytest.raises(ArgumentError) as info:
        build(cfg, *arguments)
    more = ', or install mmcv, which knows more' if mmcv == 'without mmcv' else ''
    assert str(info.value) == message + (more if 'names no layer' in message else '')


@pytest.mark.parametrize(
    ('build', 'cfg', 'message'),
    [
        (build_norm_layer, dict(type='BN', epsilon=1), r"norm_cfg={'type': 'BN', 'epsilon': 1}"),
        (
            build_conv_layer,
            dict(type='Conv2d', steps=2),
            r"conv_cfg={'type': 'Conv2d', 'steps': 2}",
        ),
    ],
)
def test_arguments_that_a_layer_does_not_take_are_named(mmcv, build, cfg, message):
    name = [*cfg][-1]
    with pytest.raises(ArgumentError) as info:
        build(cfg, *((4,) if build is build_norm_layer else (4, 8, 3)))
    pattern = rf"{message}: \w+\.__init__\(\) got an unexpected keyword argument '{name}'"
    assert re.fullmatch(pattern, str(info.value))


def test_drop_path_draws_as_mmcv_does():
    x = torch.randn(64, 2, 3, 3, dtype=torch.float64)
    outputs = []
    for kind in (DropPath, MmcvDropPath):
        torch.manual_seed(0)
        outputs.append(kind(0.3).train()(x))
        assert kind(0.3).eval()(x) is x
    assert torch.equal(*outputs)
    kept = outputs[0].flatten(1).abs().sum(1) > 0
    assert 0 < kept.sum() < 64
    assert torch.equal(outputs[0][kept], x[kept] / 0.7)


def exercise_backbone() -> dict:
    """What a backbone computes in training and in both forms of inference, and its gradients.

    A subprocess runs its source.
    """
    backbone = randomise(UniRepLKNet(SMALL_ARCH, drop_path_rate=0.5))
    x = torch.randn(4, 3, 48, 40, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(2)
    training = backbone.train()(x)
    sum(feature.square().mean() for feature in training).backward()
    gradients = [parameter.grad for parameter in backbone.parameters()]
    with torch.no_grad():
        inference = backbone.eval()(x)
        backbone.switch_to_deploy()
        deploy = backbone(x)
    frozen = UniRepLKNet(SMALL_ARCH, norm_cfg=dict(type='SyncBN', requires_grad=False))
    synced = frozen.stages[0][0].norm
    return dict(
        training=[feature.detach() for feature in training],
        gradients=gradients,
        inference=list(inference),
        deploy=list(deploy),
        norm=(type(synced).__name__, synced.weight.requires_grad),
    )


WITHOUT_OPENMMLAB = """
import sys

from hidden_packages import hide

hide(*{hidden!r})

import torch
from helpers import SMALL_ARCH, randomise

import unireplknet_mm
from unireplknet_mm.models import UniRepLKNet, layers

assert not layers.HAS_MMCV
try:
    layers.build_norm_layer(dict(type='GN', num_groups=2), 4)
except unireplknet_mm.errors.UserError as error:
    message = str(error)
"""


def test_the_network_without_mmcv_equals_the_one_with_it(tmp_path):
    code = WITHOUT_OPENMMLAB.format(hidden=HIDDEN)
    code += inspect.getsource(exercise_backbone)
    result = str(tmp_path / 'result.pth')
    code += f'torch.save(dict(exercise_backbone(), message=message), {result!r})\n'
    code += f'assert not set({HIDDEN!r}) & set(sys.modules)\n'
    paths = [str(ROOT), str(ROOT / 'ops'), str(ROOT / 'tests')]
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    without, with_mmcv = torch.load(result), exercise_backbone()
    assert without.pop('message') == (
        "norm_cfg={'type': 'GN', 'num_groups': 2} names no layer that is registered: use BN, SyncBN, "
        'BN2d, or install mmcv, which knows more'
    )
    assert without.keys() == with_mmcv.keys()
    for key, expected in with_mmcv.items():
        if key == 'norm':
            assert without[key] == expected == ('SyncBatchNorm', False)
            continue
        assert len(without[key]) == len(expected) > 0
        for actual, wanted in zip(without[key], expected, strict=True):
            assert torch.equal(actual, wanted), key
