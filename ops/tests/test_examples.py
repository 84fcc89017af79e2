"""What README.md shows works as written there."""

import os
import re
import sys
from pathlib import Path

import torch
from torch import nn

import unireplknet_ops
from unireplknet_ops.dilatedreparam import naive as dilated_reparam_naive
from unireplknet_ops.feedforward import naive

README = (Path(__file__).parents[1] / 'README.md').read_text(encoding='utf-8')
EXAMPLES = re.findall(r'```python\n(.*?)```', README, re.DOTALL)


def test_the_example_of_the_function(capsys):
    namespace = {}
    exec(EXAMPLES[0], namespace)
    assert namespace['y'].shape == (8, 384, 28, 28)
    assert capsys.readouterr().out.startswith('13x13 dilation 1 on (8, 384, 28, 28) contiguous')
    assert list(namespace['layer'].state_dict()) == ['weight', 'bias']


def test_the_example_for_replknet_slak_and_others(monkeypatch):
    monkeypatch.setitem(sys.modules, 'depthwise_conv2d_implicit_gemm', None)  # put back at the end
    monkeypatch.setenv('LARGE_KERNEL_CONV_IMPL', 'nowhere')
    namespace = {}
    exec(EXAMPLES[1], namespace)
    # As their get_conv2d does.
    exec('from depthwise_conv2d_implicit_gemm import DepthWiseConv2dImplicitGEMM', namespace)
    conv = namespace['DepthWiseConv2dImplicitGEMM'](6, (51, 5), bias=True)
    assert isinstance(conv, unireplknet_ops.DepthwiseConv2d)
    assert os.environ['LARGE_KERNEL_CONV_IMPL'] == ''
    x = torch.randn(1, 384, 9, 9)
    native = nn.Conv2d(384, 384, 31, padding=15, groups=384)
    native.load_state_dict(namespace['layer'].state_dict())
    torch.testing.assert_close(namespace['layer'](x), native(x), rtol=1e-4, atol=1e-5)


def test_the_example_of_the_feed_forward_op():
    namespace = {}
    exec(EXAMPLES[2], namespace)
    x, gamma = namespace['x'].double(), namespace['gamma'].double()
    weight1, weight2 = namespace['weight1'].double(), namespace['weight2'].double()
    expected = naive.feed_forward(x, None, weight1, None, gamma, None, weight2, None, None, x)
    error = (namespace['y'] - expected).norm() / expected.norm()
    assert error < 1e-5


def test_the_example_of_the_dilated_reparam_op():
    namespace = {}
    exec(EXAMPLES[3], namespace)
    names = ('x', 'weights', 'dilations', 'scales', 'shifts')
    inputs = [namespace[name] for name in names]
    y, mean, var = dilated_reparam_naive.dilated_reparam(*inputs, [1e-5] * 6)
    for actual, expected in ((namespace['y'], y), (namespace['var'], var)):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    assert namespace['mean'].shape == mean.shape


def test_all_examples_are_tested():
    assert len(EXAMPLES) == README.count('```python') == 4
