"""RepLKNet: what folds, what is built, where it may start from; test_studies.py counts its parameters."""

import copy

import pytest
import torch
from helpers import randomise, relative_error, save
from torch import nn

from unireplknet_mm.errors import ArgumentError, UserError
from unireplknet_mm.models import FoldableRepLKNet

SMALL = dict(channels=(4, 6, 8, 10), depths=(1, 2, 1, 1), kernel_sizes=(3, 7, 13, 5))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_folds_but_for_the_norms_that_come_first():
    network = randomise(FoldableRepLKNet(**SMALL, has_final_norm=True).double()).eval()
    folded = copy.deepcopy(network)
    folded.switch_to_deploy()
    built = FoldableRepLKNet(**SMALL, has_final_norm=True, deploy=True).double().eval()
    built.load_state_dict(folded.state_dict())
    x = torch.randn(2, 3, 65, 43, dtype=torch.float64)
    with torch.no_grad():
        for before, after, loaded in zip(network(x), folded(x), built(x), strict=True):
            assert relative_error(after, before) < 1e-12
            assert torch.equal(loaded, after)
    norms = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 2 * 5 + 1 and all(name.endswith('norm') for name in norms)
    folded.switch_to_deploy()
    assert folded.state_dict().keys() == built.state_dict().keys()


def test_small_kernels_stand_beside_larger_ones_alone():
    names = FoldableRepLKNet(**SMALL).state_dict()
    small = sorted({name.split('.')[1] for name in names if name.endswith('small_conv.weight')})
    assert small == ['1', '2']


def test_maps_and_gradients():
    network = randomise(FoldableRepLKNet(**SMALL, drop_path_rate=0.1)).eval()
    maps = network(torch.randn(2, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(4, 16, 24), (6, 8, 12), (8, 4, 6), (10, 2, 3)]
    assert network.out_channels == [4, 6, 8, 10]
    torch.stack([(m * torch.randn_like(m)).sum() for m in maps]).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_starts_from_a_classifier(tmp_path):
    classifier = randomise(FoldableRepLKNet(**SMALL, out_indices=(3,), has_final_norm=True))
    weights = {f'backbone.{name}': value for name, value in classifier.state_dict().items()}
    path = save(
        tmp_path / 'epoch_1.pth', dict(state_dict={**weights, 'head.fc.bias': torch.ones(3)})
    )
    network = FoldableRepLKNet(**SMALL, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    network.init_weights()
    own = network.state_dict()
    assert own and all(torch.equal(own[name], classifier.state_dict()[name]) for name in own)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(depths=(1, 1)), 'depths must be 4 numbers, one a stage, got (1, 1)'),
        (dict(kernel_sizes=(3, 4, 5, 7)), 'kernel size 4 must be odd'),
        (
            dict(out_indices=(0, 4)),
            'out_indices must rise from 0 to 3 at most, without repetition, got (0, 4)',
        ),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_are_named(kwargs, message):
    with pytest.raises(ArgumentError) as info:
        FoldableRepLKNet(**SMALL | kwargs)
    assert str(info.value) == message


def test_folded_weights_and_others_do_not_mix():
    trained, folded = FoldableRepLKNet(**SMALL), FoldableRepLKNet(**SMALL, deploy=True)
    with pytest.raises(UserError, match=r're-parameterized .* build it with deploy=True'):
        trained.load_state_dict(folded.state_dict(), strict=False)
    with pytest.raises(
        UserError, match='in the training form and the backbone was built with deploy'
    ):
        nn.Sequential(folded).load_state_dict(nn.Sequential(trained).state_dict(), strict=False)
