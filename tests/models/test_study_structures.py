"""What only the paper's design studies build (Tables 3a, 3b and 3d).

Extra structures, blocks without a depthwise kernel, branches that repeat.
"""

import copy
import re

import pytest
import torch
from helpers import SMALL_ARCH, randomise, relative_error
from torch import nn

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.blocks import UniRepLKNetBlock
from unireplknet_mm.models.state_dict import check_backbone_weights

BRANCHES = ((5, 1), (13, 1), (3, 1), (3, 1), (3, 1))
STRUCTURES = ('none', 'bottleneck', 'two_1x1', 'two_dw3x3')
KINDS = {
    **{structure: dict(extra_structure=structure) for structure in STRUCTURES},
    'without depthwise': dict(
        arch=dict(SMALL_ARCH, kernel_sizes=((1,), (13,), (13, 1, 3), (1,))),
    ),
    'branches that repeat': dict(branches={13: BRANCHES}),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return dict(arch=SMALL_ARCH) | KINDS[request.param]


def test_every_kind_folds(kind):
    torch.manual_seed(0)
    network = randomise(UniRepLKNet(**kind).double()).eval()
    x = torch.randn(2, 3, 75, 50, dtype=torch.float64)
    with torch.no_grad():
        before = network(x)
        folded = copy.deepcopy(network)
        folded.switch_to_deploy()
        after = folded(x)
    for old, new in zip(before, after, strict=True):
        assert relative_error(new, old) < 1e-12
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(parameter.requires_grad for parameter in folded.parameters())

    built = UniRepLKNet(**kind, deploy=True).double().eval()
    check_backbone_weights(built, folded.state_dict())
    built.load_state_dict(folded.state_dict())
    folded.switch_to_deploy()
    with torch.no_grad():
        for again, loaded, new in zip(folded(x), built(x), after, strict=True):
            assert torch.equal(again, new) and torch.equal(loaded, new)


def test_every_parameter_of_every_kind_gets_a_gradient(kind):
    torch.manual_seed(0)
    network = randomise(UniRepLKNet(**kind)).train()
    maps = network(torch.randn(2, 3, 64, 64))
    torch.stack([(m * torch.randn_like(m)).sum() for m in maps]).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize('structure', STRUCTURES)
def test_frozen_structures_stay_frozen(structure):
    block = UniRepLKNetBlock(8, 1, extra_structure=structure).requires_grad_(False).half().eval()
    block.switch_to_deploy()
    assert not any(parameter.requires_grad for parameter in block.parameters())
    assert {parameter.dtype for parameter in block.parameters()} == {torch.float16}
    layers = [m for m in block.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert layers and not any(layer.training for layer in layers)


def test_an_unknown_structure_is_named_with_the_known_ones():
    with pytest.raises(ArgumentError) as info:
        UniRepLKNetBlock(8, 3, extra_structure='cbam')
    assert str(info.value) == (
        "extra_structure must be one of se, none, bottleneck, two_1x1, two_dw3x3, got 'cbam'"
    )


def test_the_default_block_is_the_published_one():
    """Nothing of the studies is in it, by name or as a module."""
    block = UniRepLKNetBlock(8, 13)
    names = {re.sub(r'\.(weight|bias)$', '', name) for name in block.state_dict()}
    assert {'se.down', 'se.up', 'dwconv.dil_conv_k3_3', 'dwconv.lk_origin'} <= names
    assert not any(re.search(r'_k\d+_\d+_\d', name) for name in names)
    assert [type(module).__name__ for module in block.se.children()] == ['Conv2d', 'Conv2d']
