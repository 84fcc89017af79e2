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
from torch import nn

from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.whole_model import adapt_state_dict, switch_to_deploy
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
    with pytest.raises(CheckpointError, match=r"under 'student.backbone.', the model under 'backb"):
        adapt_state_dict(weights, ToyDetector(UniRepLKNet('a')))


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
