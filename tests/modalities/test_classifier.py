"""The bridge of all modalities: an embedding in front of the untouched backbone, for every tool."""

import copy
import importlib
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, randomise, relative_error
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from torch import nn

from unireplknet_mm.errors import UserError
from unireplknet_mm.launch import input_channels, input_size
from unireplknet_mm.launch.channels import check_channels
from unireplknet_mm.launch.folding import fold
from unireplknet_mm.measuring.catalogue import find_config_model
from unireplknet_mm.modalities.classifier import ModalityClassifier
from unireplknet_mm.models.state_dict import find_state_dict
from unireplknet_mm.models.whole_model import adapt_state_dict, find_backbones

ROOT = Path(__file__).resolve().parents[2]
INPUT_SHAPE = (6, 40, 48)  # readings, height, width


class Fold(nn.Module):
    """(B, 6, H, W) -> (B, 2, H, 3 W), without parameters."""

    def forward(self, x):
        return x.unflatten(1, (2, 3)).permute(0, 1, 3, 2, 4).flatten(3)


class Project(nn.Module):
    """(B, 6, H, W) -> (B, 2, H, W)."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(6, 2, 1)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x):
        return self.norm(self.convolution(x))


@pytest.fixture(scope='module', autouse=True)
def registered():
    for module in (Fold, Project):
        MODELS.register_module(module=module, force=True)
    yield
    for module in (Fold, Project):
        MODELS.module_dict.pop(module.__name__)


def config(embedding: str = 'Project', **backbone) -> Config:
    settings = dict(arch=SMALL_ARCH, in_channels=2, out_indices=(3,), gap_before_final_norm=True)
    head = dict(type='LinearClsHead', num_classes=5, in_channels=32)
    return Config(
        dict(
            default_scope='mmpretrain',
            input_shape=INPUT_SHAPE,
            model=dict(
                type='ModalityClassifier',
                embedding=dict(type=embedding),
                backbone=dict(type='UniRepLKNet', **settings | backbone),
                head=head,
            ),
        )
    )


def build(cfg: Config) -> ModalityClassifier:
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(cfg.model)


def test_it_is_the_image_classifier_of_the_embedded_map():
    model = randomise(build(config())).eval()
    x = torch.randn(3, *INPUT_SHAPE)
    maps = model.embed(x)
    assert maps.shape == (3, 2, 40, 48)
    assert torch.equal(maps, model.embedding(x))
    expected = model.backbone(maps)
    assert torch.equal(model.extract_feat(x, 'backbone')[0], expected[0])
    assert torch.equal(model.extract_feat(x)[0], expected[0])
    assert torch.equal(model.extract_feat(x, 'pre_logits'), expected[0])
    logits = model.head.fc(expected[0])
    assert torch.equal(model(x), logits)
    predicted = model.predict(x, [DataSample() for _ in range(3)])
    assert torch.equal(torch.stack([s.pred_score for s in predicted]), logits.softmax(1))


def test_a_config_with_mixup_is_built_more_than_once():
    cfg = config()
    cfg.model.data_preprocessor = dict(num_classes=5, to_onehot=True)
    cfg.model.train_cfg = dict(augments=[dict(type='Mixup', alpha=10.0)], probs=[0.6])
    before = copy.deepcopy(cfg.model)
    for _ in range(2):
        model = build(cfg)
        assert model.data_preprocessor.batch_augments.probs == pytest.approx([0.6, 0.4])
    assert cfg.model == before


def test_the_gradient_reaches_the_embedding():
    model = randomise(build(config()))
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    model.loss(torch.randn(3, *INPUT_SHAPE), samples)['loss'].backward()
    parameters = dict(model.embedding.named_parameters())
    parameters['stem'] = model.backbone.downsample_layers[0][0].weight
    # What shifts a whole channel before a BatchNorm has no gradient but rounding's.
    without = [n for n, p in parameters.items() if p.grad is None or p.grad.abs().max() < 1e-4]
    assert without == ['convolution.bias']


@pytest.mark.parametrize('embedding', ['Project', 'Fold'])
def test_folding_keeps_the_function(embedding):
    cfg = config(embedding)
    model = randomise(build(cfg)).eval()
    x = torch.randn(2, *INPUT_SHAPE)
    with torch.no_grad():
        before = model(x)
        assert fold(model, cfg, 'a config') < 1e-4
        assert relative_error(model(x), before) < 1e-4
    assert next(iter(find_backbones(model).values())).deploy


@pytest.mark.parametrize(('decay_type', 'head'), [('layer_wise', 13), ('stage_wise', 5)])
def test_the_embedding_is_in_the_layer_of_the_stem(decay_type, head):
    model = build(config())
    settings = dict(decay_rate=0.5, decay_type=decay_type)
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0),
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=settings,
        ),
    )
    layers = {
        name: group['layer_id']
        for group in wrapper.optimizer.param_groups
        for name in group['param_names']
    }
    assert {layer for name, layer in layers.items() if name.startswith('embedding.')} == {0}
    assert layers['backbone.downsample_layers.0.0.weight'] == 0
    assert layers['head.fc.weight'] == head


def test_the_layers_that_mmpretrain_asks_for():
    model = build(config())
    assert model.get_layer_depth('embedding.convolution.weight') == (0, 14)
    assert model.get_layer_depth('backbone.stages.0.0.gamma') == (1, 14)
    assert model.get_layer_depth('head.fc.weight') == (13, 14)


def test_maps_that_the_backbone_does_not_take():
    model = build(config(in_channels=4))
    with pytest.raises(UserError, match=r'Project makes \(1, 2, 40, 48\).* takes \(B, 4, H, W\)'):
        model(torch.zeros(1, *INPUT_SHAPE))
    model.embedding = nn.Flatten(2)
    with pytest.raises(UserError, match=r'Flatten makes \(1, 6, 1920\)'):
        model(torch.zeros(1, *INPUT_SHAPE))


def test_an_image_classifier_s_weights_fit_an_embedding_without_parameters():
    cfg = config('Fold')
    model = build(cfg)
    cfg.model.pop('embedding')
    cfg.model.type = 'ImageClassifier'
    images = randomise(build(cfg))
    weights = adapt_state_dict(find_state_dict(dict(state_dict=images.state_dict())), model)
    model.load_state_dict(weights)
    x = torch.randn(1, *INPUT_SHAPE)
    assert torch.equal(model.eval()(x), images.eval()(model.embed(x)))


def test_a_head_that_does_not_fit_is_named():
    cfg = config()
    cfg.model.head.in_channels = 33
    model = build(cfg)
    assert input_channels(cfg, model) == 2
    with pytest.raises(UserError, match=r'model\.head'):
        check_channels(model, input_channels(cfg, model), cfg.model)


def test_the_channels_of_maps_for_a_backbone_that_does_not_state_them():
    cfg = config('Fold')
    cfg.model.backbone = dict(type='ResNet', depth=18, in_channels=2)
    model = build(cfg)
    assert input_channels(cfg, model) == 2
    assert input_size(cfg) == INPUT_SHAPE[1:]
    cfg.pop('input_shape')
    with pytest.raises(UserError, match='add input_shape'):
        input_channels(cfg, model)


@pytest.mark.parametrize(('embedding', 'flops'), [('Project', 12 * 40 * 48), ('Fold', 0)])
def test_get_flops_counts_the_embedding(monkeypatch, embedding, flops):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    tool = importlib.import_module('get_flops')
    cfg = config(embedding)
    model = tool.build_on_meta(cfg)
    leading = tool.leading_shape(model, cfg.input_shape)
    parts = tool.count_parts(model, *tool.default_shape(cfg), leading)
    assert [part.name for part in parts] == ['embedding', 'backbone', 'head']
    assert parts[0].flops == flops
    backbone = tool.Part(
        'backbone', *tool.count_parts(model.backbone, 40, 48 if flops else 144, (2,))[0][1:]
    )
    assert parts[1] == backbone


def test_the_benchmark_makes_samples_of_the_stated_shape():
    task = find_config_model(config())()
    batch = task.make_batch(2, INPUT_SHAPE[1:], 'cpu')
    assert batch.shape == (2, *INPUT_SHAPE)
    assert task.infer(task.model, batch).shape == (2, 5)
    assert task.loss(task.model, batch).isfinite()
