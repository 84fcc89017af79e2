"""UniRepLKNets inside whole models: names of raw files in their hosts, folding everything."""

import pytest
import torch
from helpers import (
    SMALL_ARCH,
    ToyDetector,
    assert_body_loaded,
    detector_weights,
    published_weights,
    randomise,
)
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.whole_model import (
    adapt_state_dict,
    check_not_only_backbone,
    find_backbones,
    holds_deploy_form,
    switch_to_deploy,
)
from unireplknet_mm.weights import CheckpointError


def test_a_raw_file_becomes_an_image_classifier(tmp_path):
    from mmpretrain.models import ImageClassifier

    weights = published_weights('a')
    model = ImageClassifier(
        backbone=dict(type='UniRepLKNet', arch='a', out_indices=(3,), gap_before_final_norm=True),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=320),
    )
    adapted = adapt_state_dict(weights, model)
    model.load_state_dict(adapted, strict=True)
    assert_body_loaded(model.backbone, weights)
    assert torch.equal(model.backbone.norm.bias, weights['norm.bias'])
    assert torch.equal(model.head.fc.weight, weights['head.weight'])
    assert adapt_state_dict(adapted, model) is adapted


def test_a_raw_file_gives_a_detector_its_backbone_only():
    model = ToyDetector(UniRepLKNet('a'))
    adapted = adapt_state_dict(published_weights('a'), model)
    assert adapted.keys() < model.state_dict().keys()
    assert all(name.startswith(('backbone.stages.', 'backbone.downsample_')) for name in adapted)
    model.load_state_dict(adapted, strict=False)
    assert_body_loaded(model.backbone, published_weights('a'))


def test_a_detector_is_left_as_it_is():
    weights = detector_weights('a')
    assert adapt_state_dict(weights, ToyDetector(UniRepLKNet('a'))) is weights
    assert adapt_state_dict(weights, nn.Linear(2, 2)) is weights


def test_weights_under_another_name_in_the_model_are_refused():
    weights = detector_weights('a', prefix='student.backbone.')
    with pytest.raises(CheckpointError) as info:
        adapt_state_dict(weights, ToyDetector(UniRepLKNet('a')))
    assert str(info.value) == (
        "the weights have their UniRepLKNet under 'student.backbone.', the model under 'backbone.'"
    )


def test_switch_to_deploy_folds_the_outermost_modules():
    model = nn.Sequential(UniRepLKNet(SMALL_ARCH), nn.Linear(2, 2))
    randomise(model).eval()
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = model[0](x)
    assert switch_to_deploy(model) == 1
    assert model[0].deploy
    for actual, wanted in zip(model[0](x), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-4)
    assert switch_to_deploy(nn.Linear(2, 2)) == 0


class Net(nn.Module):
    """Two backbones, neither called so, and a part beside them."""

    def __init__(self, **options):
        super().__init__()
        self.image_encoder = UniRepLKNet('a', **options)
        self.depth_encoder = UniRepLKNet('a', **options)
        self.decoder = nn.Linear(2, 2)


class Host(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = Net(**options)
        self.head = nn.Linear(2, 2)


@MODEL_WRAPPERS.register_module()
class Wrapper(nn.Module):
    """What MMEngine takes for a wrapper, without the processes that the real one needs."""

    def __init__(self, module):
        super().__init__()
        self.module = module


def test_backbones_are_found_wherever_they_are():
    host = Host()
    found = {
        'net.image_encoder.': host.net.image_encoder,
        'net.depth_encoder.': host.net.depth_encoder,
    }
    assert find_backbones(host) == found
    assert find_backbones(Wrapper(host)) == found
    assert find_backbones(host.net.image_encoder) == {'': host.net.image_encoder}
    assert find_backbones(nn.Linear(2, 2)) == {}


def test_a_raw_file_fills_every_backbone_of_its_arch():
    host = Host()
    raw = published_weights('a')
    adapted = adapt_state_dict(raw, host)
    host.load_state_dict(adapted, strict=False)
    for backbone in find_backbones(host).values():
        assert_body_loaded(backbone, raw)


def test_the_backbone_that_does_not_fit_is_named():
    host = Host()
    host.net.depth_encoder = UniRepLKNet('a', in_channels=1)
    with pytest.raises(CheckpointError) as info:
        adapt_state_dict(published_weights('a'), host)
    assert str(info.value) == (
        'net.depth_encoder of the model: the weights do not match the backbone: 1 of another shape '
        '(downsample_layers.0.0.weight (20, 3, 3, 3) instead of (20, 1, 3, 3))'
    )


@pytest.mark.parametrize('wrap', [lambda model: model, Wrapper])
def test_weights_for_backbones_alone_are_refused_with_the_names_of_the_others(wrap):
    host = Host()
    weights = host.state_dict()
    backbones = tuple(find_backbones(host))
    alone = {name: value for name, value in weights.items() if name.startswith(backbones)}
    with pytest.raises(CheckpointError) as info:
        check_not_only_backbone(alone, wrap(host))
    assert str(info.value) == (
        'there are weights for the backbone only, none for net.decoder, head of the Host: test a trained '
        'one; pretrained weights belong in the init_cfg of the backbone'
    )
    for name in ('head.bias', 'net.decoder.weight'):
        check_not_only_backbone(alone | {name: weights[name]}, wrap(host))
    check_not_only_backbone(alone, host.net.image_encoder)
    check_not_only_backbone({}, nn.Linear(2, 2))


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.', 'net.image_encoder.'])
def test_the_form_of_a_state_dict(prefix):
    for deploy in (False, True):
        names = published_weights('a', 'deploy' if deploy else 'train')
        state_dict = {prefix + name: value for name, value in names.items()}
        # A BatchNorm elsewhere in the model says nothing about the backbone.
        state_dict['neck.norm.running_var'] = torch.ones(1)
        assert holds_deploy_form(state_dict) is deploy
    assert not holds_deploy_form({'fc.weight': torch.ones(1)})


def test_every_backbone_is_folded():
    host = Host()
    assert switch_to_deploy(host) == 2
    assert all(backbone.deploy for backbone in find_backbones(host).values())
