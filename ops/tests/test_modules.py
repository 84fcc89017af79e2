"""`DepthwiseConv2d` and `DepthWiseConv2dImplicitGEMM` as `nn.Conv2d`."""

import copy
import io
import pickle

import pytest
import torch
from op_cases import RecordedCalls, reason_to_skip
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unireplknet_ops import DepthwiseConv2d, DepthWiseConv2dImplicitGEMM
from unireplknet_ops.depthwise import build_depthwise_conv2d, build_implicit_gemm
from unireplknet_ops.errors import UserError

needs_op = pytest.mark.skipif(reason_to_skip('cpu') is not None, reason='no compiled op')
CLASSES = {
    build_depthwise_conv2d: DepthwiseConv2d,
    build_implicit_gemm: DepthWiseConv2dImplicitGEMM,
}
BUILDERS = pytest.mark.parametrize('build', CLASSES)
ATTRIBUTES = (
    'in_channels',
    'out_channels',
    'kernel_size',
    'stride',
    'padding',
    'dilation',
    'groups',
    'padding_mode',
    'transposed',
    'output_padding',
)


def native_like(conv: nn.Conv2d) -> nn.Conv2d:
    """The `nn.Conv2d` with the same attributes and numbers."""
    native = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
        conv.bias is not None,
    )
    native.load_state_dict(conv.state_dict())
    return native.to(conv.weight.device, conv.weight.dtype)


@pytest.mark.parametrize(
    'change',
    [
        dict(stride=(2, 2)),
        dict(padding=(0, 0)),
        dict(dilation=(1, 2)),
        dict(padding_mode='circular', _reversed_padding_repeated_twice=[2, 2, 2, 2]),
    ],
    ids=str,
)
def test_attributes_changed_later_count(change):
    """As in code that turns strides into dilations, or pads circularly."""
    module = DepthwiseConv2d(8, kernel_size=5)
    native = native_like(module)
    for name, value in change.items():
        setattr(module, name, value)
        setattr(native, name, value)
    x = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(module(x), native(x), rtol=0, atol=0)


@pytest.mark.parametrize('implementation', ['auto', 'native', 'op'])
@pytest.mark.parametrize(
    'arguments',
    [
        dict(kernel_size=7),
        dict(kernel_size=(5, 13), bias=False),
        dict(kernel_size=3, dilation=4),
        dict(kernel_size=3, padding='same', dilation=(2, 2)),
        dict(kernel_size=(3, 5), padding=(1, 2), stride=(1, 1)),
    ],
    ids=str,
)
def test_is_nn_conv2d(device, arguments, implementation):
    conv = DepthwiseConv2d(8, 8, **arguments, groups=8, implementation=implementation).to(device)
    native = native_like(conv)
    assert isinstance(conv, nn.Conv2d)
    assert {name: getattr(conv, name) for name in ATTRIBUTES} == {
        name: getattr(native, name) for name in ATTRIBUTES
    }
    assert list(conv.state_dict()) == list(native.state_dict())
    x = torch.randn(2, 8, 9, 12, device=device)
    for module in (conv, native):
        module.zero_grad()
        module(x).square().sum().backward()
    torch.testing.assert_close(conv(x), native(x), rtol=1e-4, atol=1e-5)
    for parameter, expected in zip(conv.parameters(), native.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-4)


def test_starts_with_the_weights_of_nn_conv2d():
    torch.manual_seed(0)
    conv = DepthwiseConv2d(6, kernel_size=5)
    torch.manual_seed(0)
    native = nn.Conv2d(6, 6, 5, groups=6)
    assert torch.equal(conv.weight, native.weight) and torch.equal(conv.bias, native.bias)
    assert conv.padding == (2, 2) and conv.groups == conv.out_channels == 6


def test_signature_of_the_papers_op():
    conv = DepthWiseConv2dImplicitGEMM(6, 31)
    assert conv.weight.shape == (6, 1, 31, 31) and conv.bias is None
    assert conv.padding == (15, 15) and conv.stride == (1, 1) and conv.groups == 6
    assert DepthWiseConv2dImplicitGEMM(6, (51, 5), True).bias.shape == (6,)
    assert DepthWiseConv2dImplicitGEMM(channels=6, kernel_size=(5, 51), bias=True).padding == (
        2,
        25,
    )
    x = torch.randn(1, 6, 9, 7)
    assert torch.allclose(conv(x), native_like(conv)(x), atol=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(kernel_size=4), 'kernel size 4x4 is even'),
        (dict(kernel_size=(3, 8)), 'kernel size 3x8 is even'),
        (dict(kernel_size=0), 'kernel size 0x0 is even'),
        (dict(kernel_size=-1), 'kernel size -1x-1 is below 1'),
        (dict(out_channels=16), 'in_channels = out_channels = groups, got 8, 16, 8: use nn.Conv2d'),
        (dict(groups=1), 'got 8, 8, 1: use nn.Conv2d'),
        (dict(stride=2), "stride must be 1 and padding_mode 'zeros', got 2"),
        (dict(padding_mode='reflect'), "padding_mode 'zeros', got 1 and 'reflect'"),
        (dict(padding=0), r"padding must be 'same', which is \(3, 3\) for kernel size 7x7"),
        (dict(padding='valid'), 'got valid: use nn.Conv2d'),
        (dict(padding=3, dilation=2), r'is \(6, 6\) for kernel size 7x7 and dilation 2, got 3'),
        (dict(dilation=(1, 2)), r'dilation must be the same for both axes, got \(1, 2\)'),
        (dict(implementation='fast'), "implementation='fast' is not known: choose one of auto"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        DepthwiseConv2d(**{'in_channels': 8, 'kernel_size': 7, **arguments})
    assert isinstance(caught.value, UserError)


def test_copies_and_pickles():
    conv = DepthwiseConv2d(4, kernel_size=5, implementation='native')
    file = io.BytesIO()
    torch.save(conv, file)
    file.seek(0)
    x = torch.randn(1, 4, 8, 8)
    for other in (
        copy.deepcopy(conv),
        pickle.loads(pickle.dumps(conv)),
        torch.load(file, weights_only=False),
    ):
        assert type(other) is DepthwiseConv2d and other.implementation == 'native'
        assert torch.equal(other(x), conv(x))
    implicit = copy.deepcopy(DepthWiseConv2dImplicitGEMM(4, 5))
    assert type(implicit) is DepthWiseConv2dImplicitGEMM


def test_says_what_it_is():
    assert 'implementation=native' in repr(DepthwiseConv2d(4, implementation='native'))
    assert repr(DepthWiseConv2dImplicitGEMM(4, 5)).startswith('DepthWiseConv2dImplicitGEMM(4, 4, ')


@needs_op
def test_the_implementation_may_be_changed_later():
    conv = DepthwiseConv2d(4, kernel_size=5)
    for implementation in ('op', 'native'):
        conv.implementation = implementation
        with RecordedCalls() as calls:
            conv(torch.randn(1, 4, 8, 8))
        assert calls.implementations() == [implementation]


def test_folds_with_a_batch_norm():
    conv, norm = DepthwiseConv2d(4, kernel_size=5), nn.BatchNorm2d(4)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 1.5)
    x = torch.randn(2, 4, 8, 8)
    folded = fuse_conv_bn_eval(conv.eval(), norm.eval())
    assert type(folded) is DepthwiseConv2d
    assert torch.allclose(folded(x), norm(conv(x)), atol=1e-5)


@BUILDERS
@pytest.mark.parametrize('padding', [6, (6, 6), 'same'])
def test_depthwise_convolutions_are_built_as_the_op(build, padding):
    conv = build(8, 8, 13, padding=padding, groups=8, bias=False)
    assert type(conv) is CLASSES[build]
    assert conv.weight.shape == (8, 1, 13, 13) and conv.bias is None
    x = torch.randn(1, 8, 14, 14)
    assert torch.allclose(conv(x), native_like(conv)(x), atol=1e-5)


@BUILDERS
def test_builders_pass_the_implementation(build):
    conv = build(8, 8, 5, padding=2, groups=8, implementation='native')
    assert type(conv) is DepthwiseConv2d and conv.implementation == 'native'
    assert conv.bias is not None


@BUILDERS
@pytest.mark.parametrize(
    'arguments',
    [
        dict(in_channels=8, out_channels=16, kernel_size=1),
        dict(in_channels=8, out_channels=16, kernel_size=3, padding=1, groups=8),
        dict(in_channels=8, out_channels=8, kernel_size=3, padding=1),
        dict(in_channels=8, out_channels=8, kernel_size=3, padding=1, groups=4),
        dict(in_channels=8, out_channels=8, kernel_size=7, stride=2, padding=3, groups=8),
        dict(in_channels=8, out_channels=8, kernel_size=7, groups=8),
        dict(in_channels=8, out_channels=8, kernel_size=7, padding=1, groups=8),
        dict(
            in_channels=8, out_channels=8, kernel_size=3, padding=(2, 1), dilation=(2, 1), groups=8
        ),
        dict(
            in_channels=8,
            out_channels=8,
            kernel_size=3,
            padding=1,
            groups=8,
            padding_mode='reflect',
        ),
    ],
    ids=str,
)
def test_other_convolutions_are_built_as_nn_conv2d(build, arguments):
    conv = build(**arguments)
    assert type(conv) is nn.Conv2d
    assert repr(conv) == repr(nn.Conv2d(**arguments))


@BUILDERS
def test_an_even_size_is_refused(build):
    with pytest.raises(ValueError, match='kernel size 8x8 is even'):
        build(8, 8, 8, padding=4, groups=8)
