"""MobileNet V2 with large kernels: mmpretrain's where the structures are the same, and what folds."""

import copy

import pytest
import torch
from helpers import randomise, relative_error, save
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from unireplknet_mm.errors import ArgumentError, UserError
from unireplknet_mm.models import LargeKernelMobileNetV2
from unireplknet_mm.models.mobilenet_v2 import InvertedResidual
from unireplknet_ops import DepthwiseConv2d

SMALL = dict(widen_factor=0.125)
STRIDE_8 = dict(
    strides=(1, 2, 2, 1, 1, 1, 1), dilations=(1, 1, 1, 2, 2, 4, 4), out_indices=(1, 2, 4, 6)
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize('widen_factor', [0.75, 1.4])
def test_with_3x3_kernels_it_is_mmpretrains(widen_factor):
    pytest.importorskip('mmpretrain')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        theirs = MODELS.build(dict(type='mmpretrain.MobileNetV2', widen_factor=widen_factor))
    ours = LargeKernelMobileNetV2(widen_factor=widen_factor)
    randomise(theirs)
    theirs.eval()  # whose train() returns nothing
    ours.eval().load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 61, 45)
    with torch.no_grad():
        assert relative_error(ours(x)[0], theirs(x)[0]) < 1e-5


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(kernel_sizes=13, has_shortcut=False),
        dict(kernel_sizes=9, small_kernel_size=3),
        dict(kernel_sizes=(3, 3, 3, 3, 3, 3, 7), small_kernel_size=3, **STRIDE_8),
    ],
    ids=str,
)
def test_folds_into_one_convolution_a_layer(kwargs):
    network = randomise(LargeKernelMobileNetV2(**SMALL, **kwargs).double()).eval()
    x = torch.randn(2, 3, 65, 43, dtype=torch.float64)
    folded = copy.deepcopy(network)
    folded.switch_to_deploy()
    built = LargeKernelMobileNetV2(**SMALL, **kwargs, deploy=True).double().eval()
    built.load_state_dict(folded.state_dict())
    assert not [module for module in built.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for before, after, loaded in zip(network(x), folded(x), built(x), strict=True):
            assert relative_error(after, before) < 1e-12
            assert torch.equal(loaded, after)
    folded.switch_to_deploy()
    assert folded.state_dict().keys() == built.state_dict().keys()


def test_branches_stand_beside_larger_kernels_alone():
    network = LargeKernelMobileNetV2(
        **SMALL, kernel_sizes=(3, 3, 3, 3, 3, 5, 7), small_kernel_size=3
    )
    with_branch = [name for name in network.state_dict() if name.endswith('small_conv.weight')]
    assert [name.split('.')[0] for name in with_branch] == ['layer6'] * 3 + ['layer7']
    assert all(network.state_dict()[name].shape[-2:] == (3, 3) for name in with_branch)


def test_shortcuts():
    def added(**kwargs) -> list[bool]:
        network = LargeKernelMobileNetV2(**SMALL, drop_path_rate=0.5, **kwargs)
        blocks = [m for m in network.modules() if isinstance(m, InvertedResidual)]
        dropped = [not isinstance(block.drop_path, nn.Identity) for block in blocks]
        assert dropped[1:] == [block.is_added for block in blocks[1:]] and not dropped[0]
        return [block.is_added for block in blocks]

    # With two blocks or more, all but the first of a layer.
    repeats = [i > 0 for depth in (1, 2, 3, 4, 3, 3, 1) for i in range(depth)]
    widths_meet = added()
    assert [a and not b for a, b in zip(repeats, widths_meet, strict=True)] == [False] * 17
    assert not any(added(has_shortcut=False))


def test_the_op_runs_what_it_can():
    network = LargeKernelMobileNetV2(**SMALL, kernel_sizes=13)
    kinds = {
        module.stride: type(module) for module in network.modules() if hasattr(module, 'stride')
        and module.groups > 1
    }  # fmt: skip
    assert kinds == {(1, 1): DepthwiseConv2d, (2, 2): nn.Conv2d}


def test_every_parameter_gets_a_gradient_and_stride_8_is_8():
    network = randomise(
        LargeKernelMobileNetV2(**SMALL, kernel_sizes=9, small_kernel_size=3, **STRIDE_8)
    )
    maps = network.train()(torch.randn(2, 3, 64, 96))
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (8, 12), (8, 12)]
    assert [m.shape[1] for m in maps] == network.out_channels
    torch.stack([(m * torch.randn_like(m)).sum() for m in maps]).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert not hasattr(network, 'conv2')  # of what no output needs, nothing is built


def test_frozen_stages_and_norms():
    network = LargeKernelMobileNetV2(**SMALL, frozen_stages=2, norm_eval=True)
    assert network.train() is network
    frozen = {name.split('.')[0] for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {'conv1', 'layer1', 'layer2'}
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    assert network.layer3.training and not network.layer2.training


def test_starts_from_a_classifier(tmp_path):
    classifier = randomise(LargeKernelMobileNetV2(**SMALL, kernel_sizes=9, small_kernel_size=3))
    weights = {f'backbone.{name}': value for name, value in classifier.state_dict().items()}
    path = save(
        tmp_path / 'epoch_1.pth', dict(state_dict={**weights, 'head.fc.bias': torch.ones(3)})
    )
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    network = LargeKernelMobileNetV2(
        **SMALL, kernel_sizes=9, small_kernel_size=3, **STRIDE_8, init_cfg=init_cfg
    )
    network.init_weights()
    own = network.state_dict()
    assert own and all(torch.equal(own[name], classifier.state_dict()[name]) for name in own)

    other = LargeKernelMobileNetV2(**SMALL, kernel_sizes=9, init_cfg=init_cfg)
    with pytest.raises(
        UserError, match=r'epoch_1.pth: the weights do not match .* surplus \(layer1'
    ):
        other.init_weights()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(kernel_sizes=(3, 5)), 'kernel_sizes must be 7 numbers, one a layer, got (3, 5)'),
        (dict(kernel_sizes=4), 'kernel size 4 must be odd'),
        (dict(small_kernel_size=2), 'kernel size 2 must be odd'),
        (dict(strides=(1,)), 'strides must be 7 numbers, one a layer, got (1,)'),
        (
            dict(out_indices=(1, 8)),
            'out_indices must rise from 0 to 7 at most, without repetition, got (1, 8)',
        ),
        (
            dict(out_indices=(2, 1)),
            'out_indices must rise from 0 to 7 at most, without repetition, got (2, 1)',
        ),
        (dict(frozen_stages=9), 'frozen_stages must be between -1 and 7, got 9'),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_named(kwargs, message):
    with pytest.raises(ArgumentError) as info:
        LargeKernelMobileNetV2(**kwargs)
    assert str(info.value) == message


def test_folded_weights_and_others_do_not_mix():
    trained, folded = LargeKernelMobileNetV2(**SMALL), LargeKernelMobileNetV2(**SMALL, deploy=True)
    with pytest.raises(UserError, match=r're-parameterized .* build it with deploy=True'):
        trained.load_state_dict(folded.state_dict(), strict=False)
    with pytest.raises(
        UserError, match='in the training form and the backbone was built with deploy'
    ):
        nn.Sequential(folded).load_state_dict(nn.Sequential(trained).state_dict(), strict=False)
