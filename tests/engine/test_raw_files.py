"""MMEngine's `load_checkpoint` on models with a UniRepLKNet in them."""

import contextlib
import logging
from unittest import mock

import pytest
import torch
from helpers import (
    SMALL_ARCH,
    ToyDetector,
    detector_weights,
    published_weights,
    randomise,
    relative_error,
    save,
)
from mmengine.config import Config
from mmengine.infer import BaseInferencer
from mmengine.infer import infer as infer_module
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint
from torch import nn

from unireplknet_mm.models import LargeKernelMobileNetV2, UniRepLKNet
from unireplknet_mm.models.whole_model import switch_to_deploy
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


def test_another_architecture_and_in_training_the_other_form_are_refused(tmp_path):
    path = str(save(tmp_path / 'raw.pth', published_weights('n')))
    with pytest.raises(CheckpointError, match='the model is UniRepLKNet-A'):
        load_checkpoint(ToyDetector(UniRepLKNet('a')), path)
    deploy = str(save(tmp_path / 'deploy.pth', published_weights('a', 'deploy')))
    model = ToyDetector(UniRepLKNet('a'))
    model.init_weights()  # as a training does
    with pytest.raises(CheckpointError, match='build it with deploy=True'):
        load_checkpoint(model, deploy)
    load_checkpoint(ToyDetector(UniRepLKNet('a', deploy=True)), deploy)
    model = ToyDetector(UniRepLKNet('a'))
    model.init_cfg = dict(type='Pretrained', checkpoint=deploy)
    with pytest.raises(CheckpointError, match='build it with deploy=True'):
        model.init_weights()


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


def build_small_mobilenet(**options) -> LargeKernelMobileNetV2:
    return LargeKernelMobileNetV2(
        widen_factor=0.125, small_kernel_size=3, kernel_sizes=7, **options
    )


@pytest.mark.parametrize(
    'build',
    [lambda: UniRepLKNet(SMALL_ARCH), build_small_mobilenet],
    ids=['unireplknet', 'mobilenet'],
)
def test_a_model_is_folded_for_folded_weights(tmp_path, build):
    model = ToyDetector(randomise(build())).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = model.backbone(x)
    switch_to_deploy(model)
    path = str(save(tmp_path / 'deploy.pth', dict(state_dict=model.state_dict())))
    again = ToyDetector(build()).eval()
    load_checkpoint(again, path)
    assert again.backbone.deploy
    with torch.no_grad():
        actual = again.backbone(x)
    assert all(relative_error(a, e) < 2e-5 for a, e in zip(actual, expected, strict=True))
    with pytest.raises(CheckpointError, match='the weights are in the training form'):
        load_checkpoint(again, str(save(tmp_path / 'x.pth', ToyDetector(build()).state_dict())))


@contextlib.contextmanager
def logged():
    """The messages of MMEngine's logger, by level."""
    handler = logging.Handler()
    records = []
    handler.emit = lambda record: records.append((record.levelname, record.getMessage()))
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)


def test_one_warning_for_a_head_of_other_classes(tmp_path, capsys):
    """It may be fine-tuned: get_model is used for that, too."""
    weights = ToyDetector(UniRepLKNet(SMALL_ARCH), num_classes=80).state_dict()
    path = str(save(tmp_path / 'x.pth', dict(state_dict=weights)))
    with logged() as records:
        load_checkpoint(ToyDetector(UniRepLKNet(SMALL_ARCH)), path)
    (warning,) = [text for level, text in records if level == 'WARNING']
    lines = warning.splitlines()
    assert lines[0] == 'Weights of the checkpoint in the model:'
    assert lines[4].split() == ['bbox_head', '0', '0', '2', '0']
    assert lines[5:] == [
        'Of another shape, initialised anew: bbox_head.fc.weight (80, 2) in the file, (3, 2) in the model, '
        'bbox_head.fc.bias (80,) in the file, (3,) in the model.',
        'Until it is trained, what was initialised anew predicts at random. Test with the config that it '
        'was trained with, or set num_classes of the heads to its number of classes. To fine-tune it on '
        'other classes, train with load_from.',
    ]
    assert 'do not match exactly' not in capsys.readouterr().out
    model = ToyDetector(UniRepLKNet(SMALL_ARCH))
    model.init_weights()
    with logged() as records:
        load_checkpoint(model, path)
    assert [level for level, text in records if 'Weights of the' in text] == ['INFO']
    with pytest.raises(RuntimeError, match=r'size mismatch for bbox_head\.fc\.weight'):
        load_checkpoint(model, path, strict=True)


class Inferencer(BaseInferencer):
    """As far as MMEngine's builds a model."""

    def __init__(self):
        pass

    def visualize(self): ...
    def postprocess(self): ...
    def _init_pipeline(self, cfg): ...


def infer(model, path) -> None:
    class Registry:
        build = staticmethod(lambda cfg: model)

    with mock.patch.object(infer_module, 'MODELS', Registry):
        Inferencer()._init_model(Config(dict(model=dict())), str(path))


def test_inferencers_refuse_what_would_predict_at_random(tmp_path):
    path = tmp_path / 'x.pth'

    def error_of(model, weights) -> str:
        save(path, dict(state_dict=weights))
        with pytest.raises(CheckpointError) as info:
            infer(model, path)
        message = str(info.value)
        assert message.startswith(f'checkpoint {path}: ')
        return message.removeprefix(f'checkpoint {path}: ')

    small = ToyDetector(UniRepLKNet(SMALL_ARCH))
    weights = ToyDetector(UniRepLKNet(SMALL_ARCH), num_classes=80).state_dict()
    assert error_of(small, weights) == (
        'weights have another shape: bbox_head.fc.weight (80, 2) in the file, (3, 2) in the model, '
        'bbox_head.fc.bias (80,) in the file, (3,) in the model.\n'
        'Test with the config that it was trained with, or set num_classes of the heads to its number of '
        'classes. To fine-tune it on other classes, train with load_from.'
    )
    assert error_of(small, {'layer1.0.conv1.weight': torch.ones(1)}) == (
        "the weights are not of a UniRepLKNet: they look like a ResNet's (layer1.0.conv1.weight)"
    )
    assert error_of(ToyDetector(UniRepLKNet('a')), published_weights('a')) == (
        'there are weights for the backbone only, none for neck, bbox_head of the ToyDetector: test a '
        'trained one; pretrained weights belong in the init_cfg of the backbone'
    )
    with pytest.raises(FileNotFoundError):  # says the file itself
        infer(small, tmp_path / 'absent.pth')
    load_checkpoint(small, str(save(path, dict(state_dict=weights))))  # no inferencer
