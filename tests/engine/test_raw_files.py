"""MMEngine's `load_checkpoint` on models with a UniRepLKNet in them."""

import pytest
import torch
from helpers import SMALL_ARCH, ToyDetector, detector_weights, published_weights, randomise, save
from mmengine.runner import load_checkpoint
from torch import nn

from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.weights import CheckpointError


def test_a_raw_file_loads_into_a_detector_and_into_the_backbone(tmp_path):
    raw = published_weights('a')
    path = str(save(tmp_path / 'raw.pth', dict(model=raw, args=None)))
    for model in (ToyDetector(UniRepLKNet('a')), UniRepLKNet('a')):
        load_checkpoint(model, path)
        backbone = getattr(model, 'backbone', model)
        for name, value in backbone.state_dict().items():
            if name.startswith(('stages.', 'downsample_layers.')):
                assert torch.equal(value, raw[name].to(value.dtype)), name


def test_a_detector_loads_as_before(tmp_path):
    weights = detector_weights('a')
    model = ToyDetector(UniRepLKNet('a'))
    load_checkpoint(model, str(save(tmp_path / 'det.pth', dict(state_dict=weights))))
    loaded = model.state_dict()
    for name, value in weights.items():
        assert torch.equal(loaded[name], value.to(loaded[name].dtype)), name


def test_another_architecture_and_the_other_form_are_refused(tmp_path):
    path = str(save(tmp_path / 'raw.pth', published_weights('n')))
    with pytest.raises(CheckpointError, match='the model is UniRepLKNet-A'):
        load_checkpoint(ToyDetector(UniRepLKNet('a')), path)
    deploy = str(save(tmp_path / 'deploy.pth', published_weights('a', 'deploy')))
    with pytest.raises(CheckpointError, match='build it with deploy=True'):
        load_checkpoint(ToyDetector(UniRepLKNet('a')), deploy)
    load_checkpoint(ToyDetector(UniRepLKNet('a', deploy=True)), deploy)


def test_weights_without_a_backbone_and_models_without_one_are_left_alone(tmp_path):
    model = ToyDetector(randomise(UniRepLKNet(SMALL_ARCH)))
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    head = {'bbox_head.fc.bias': torch.full((3,), 4.0)}
    load_checkpoint(model, str(save(tmp_path / 'head.pth', head)))
    assert model.bbox_head.fc.bias.tolist() == [4, 4, 4]
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    linear = nn.Sequential(nn.Linear(2, 3))
    path = str(save(tmp_path / 'linear.pth', {'0.bias': torch.full((3,), 5.0)}))
    load_checkpoint(linear, path)
    assert linear[0].bias.tolist() == [5, 5, 5]
