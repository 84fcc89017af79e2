"""The layer of every parameter, its learning rate and its weight decay, against the stated rule."""

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from torch import nn

import unireplknet_mm  # noqa: F401
from unireplknet_mm.errors import UserError

BASE_LR = 1e-4
WEIGHT_DECAY = 0.05
SMALL_KERNELS = (3, 5, 5, 5)


class Model(BaseModule):
    """A backbone with a head, as a detector or segmenter has it."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(32, 3)


def build_model(stage_3_blocks: int = 27) -> Model:
    depths = (2, 2, stage_3_blocks, 2)
    arch = dict(depths=depths, channels=(4, 8, 16, 32), kernel_sizes=SMALL_KERNELS)
    return Model(MODELS.build(dict(type='UniRepLKNet', arch=arch)))


def build_wrapper(model: nn.Module, lr: float | None = BASE_LR, **paramwise_cfg):
    optimizer = dict(type='AdamW', weight_decay=WEIGHT_DECAY)
    if lr is not None:
        optimizer['lr'] = lr
    return build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=optimizer,
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=paramwise_cfg,
        ),
    )


def groups_by_name(wrapper) -> dict[str, dict]:
    return {
        name: group for group in wrapper.optimizer.param_groups for name in group['param_names']
    }


def expected_layer(name: str) -> int:
    """The rule in the words of the recipe, written independently of the backbone's code."""
    parts = name.split('.')
    if parts[:2] == ['backbone', 'downsample_layers']:
        return {'0': 0, '1': 2, '2': 3, '3': 12}[parts[2]]
    if parts[:2] == ['backbone', 'stages']:
        if parts[2] == '2':
            return 3 + int(parts[3]) // 3
        return {'0': 1, '1': 2, '3': 12}[parts[2]]
    return 13


@pytest.mark.parametrize('stage_3_blocks', [6, 18, 27])
@pytest.mark.parametrize('decay_rate', [0.7, 0.8, 1])
def test_learning_rate_follows_the_layer(stage_3_blocks, decay_rate):
    model = build_model(stage_3_blocks)
    wrapper = build_wrapper(model, decay_rate=decay_rate, num_layers=12)
    groups = groups_by_name(wrapper)
    parameters = dict(model.named_parameters())
    assert groups.keys() == parameters.keys()
    for name, group in groups.items():
        scale = decay_rate ** (13 - expected_layer(name))
        assert group['lr_scale'] == pytest.approx(scale), name
        assert group['lr'] == pytest.approx(BASE_LR * scale), name
        assert any(parameters[name] is p for p in group['params']), name


def test_every_parameter_is_in_one_group():
    model = build_model()
    wrapper = build_wrapper(model, decay_rate=0.8)
    grouped = [id(p) for group in wrapper.optimizer.param_groups for p in group['params']]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_no_weight_decay_on_norms_biases_and_vectors():
    model = build_model()
    undecayed = {
        name
        for name, group in groups_by_name(build_wrapper(model, decay_rate=0.8)).items()
        if group['weight_decay'] == 0
    }
    decayed = dict(model.named_parameters()).keys() - undecayed
    modules = dict(model.named_modules())
    assert decayed == {
        name
        for name, _ in model.named_parameters()
        if name.endswith('.weight')
        and isinstance(modules[name.rpartition('.')[0]], (nn.Conv2d, nn.Linear))
    }
    # Layer scale is a vector; GRN's gamma and beta are (1, 1, 1, C) and a norm's all the same.
    for name in ('gamma', 'act.1.gamma', 'act.1.beta'):
        assert f'backbone.stages.2.0.{name}' in undecayed
    assert model.get_parameter('backbone.stages.2.0.act.1.gamma').ndim == 4


def test_groups_carry_the_decay_of_the_optimizer():
    wrapper = build_wrapper(build_model(), decay_rate=0.8)
    assert {g['weight_decay'] for g in wrapper.optimizer.param_groups} == {0.0, WEIGHT_DECAY}
    for group in wrapper.optimizer.param_groups:
        assert {'lr', 'weight_decay', 'lr_scale', 'layer_id', 'param_names'} <= group.keys()


def test_frozen_parameters_are_left_out():
    model = build_model()
    model.backbone.downsample_layers.requires_grad_(False)
    groups = groups_by_name(build_wrapper(model, decay_rate=0.8))
    assert not any('downsample_layers' in name for name in groups)
    assert any('stages' in name for name in groups)


def test_no_paramwise_cfg_means_the_full_rate_everywhere():
    wrapper = build_wrapper(build_model())
    assert {group['lr'] for group in wrapper.optimizer.param_groups} == {BASE_LR}
    assert {g['weight_decay'] for g in wrapper.optimizer.param_groups} == {0.0, WEIGHT_DECAY}


def test_model_in_a_distributed_wrapper():
    model = build_model()
    wrapped = nn.Module()
    wrapped.module = model
    expected = groups_by_name(build_wrapper(model, decay_rate=0.8))
    got = groups_by_name(build_wrapper(wrapped, decay_rate=0.8))
    assert {n: g['lr'] for n, g in got.items()} == {n: g['lr'] for n, g in expected.items()}


def test_backbone_alone():
    groups = groups_by_name(build_wrapper(build_model().backbone, decay_rate=0.5))
    assert groups['downsample_layers.0.0.weight']['lr'] == pytest.approx(BASE_LR * 0.5**13)
    assert groups['norm3.weight']['lr'] == pytest.approx(BASE_LR)


def test_backbones_anywhere_in_the_model():
    class TwoEncoders(BaseModule):
        def __init__(self):
            super().__init__()
            self.net = nn.ModuleDict(
                dict(
                    image_encoder=build_model().backbone,
                    depth_encoder=build_model().backbone,
                    decoder=nn.Linear(32, 32),
                )
            )
            self.head = nn.Linear(32, 3)

    scales = {
        name: group['lr_scale']
        for name, group in groups_by_name(build_wrapper(TwoEncoders(), decay_rate=0.5)).items()
    }
    for encoder in ('net.image_encoder', 'net.depth_encoder'):
        names = [name for name in scales if name.startswith(encoder)]
        assert len(names) > 100
        for name in names:
            layer = expected_layer(name.replace(encoder, 'backbone'))
            assert scales.pop(name) == pytest.approx(0.5 ** (13 - layer)), name
    parts = ('net.decoder', 'head')
    assert scales == {f'{part}.{name}': 1 for part in parts for name in ('weight', 'bias')}


def test_any_backbone_with_get_layer_depth():
    class TwoLayers(nn.Sequential):
        def get_layer_depth(self, param_name, prefix='backbone.'):
            if not param_name.startswith(prefix):
                return 3, 4
            return int(param_name[len(prefix)]), 4

    groups = groups_by_name(
        build_wrapper(Model(TwoLayers(nn.Linear(2, 2), nn.Linear(2, 32))), decay_rate=0.5)
    )
    scales = {name: group['lr_scale'] for name, group in groups.items()}
    assert scales['backbone.0.weight'] == 0.125
    assert scales['backbone.1.weight'] == 0.25
    assert scales['head.weight'] == 1


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_found_from_every_task_scope(scope):
    pytest.importorskip(scope)
    with DefaultScope.overwrite_default_scope(scope):
        constructor = OPTIM_WRAPPER_CONSTRUCTORS.get('LayerDecayOptimWrapperConstructor')
        wrapper = build_wrapper(build_model(6), decay_rate=0.9)
    assert constructor.__module__ == 'unireplknet_mm.engine.layer_decay'
    assert len({group['lr'] for group in wrapper.optimizer.param_groups}) > 1


def test_a_step_moves_early_layers_less():
    # Adam's first step has the size of the learning rate, whatever the gradient.
    model = build_model(6)
    wrapper = build_wrapper(model, decay_rate=0.5)
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    wrapper.step()
    for name, scale in (('backbone.stages.0.0.gamma', 0.5**12), ('head.bias', 1)):
        step = (before[name] - model.get_parameter(name)).double().abs().max().item()
        assert step == pytest.approx(BASE_LR * scale, rel=1e-3), name


def test_log_has_one_line_a_layer(monkeypatch):
    messages = []
    monkeypatch.setattr(
        'unireplknet_mm.engine.layer_decay.print_log', lambda text, **_: messages.append(text)
    )
    model = build_model()
    build_wrapper(model, decay_rate=0.8)
    (table,) = messages
    rows = [line.split() for line in table.splitlines()[2:]]
    assert [int(row[0]) for row in rows] == list(range(14))
    counts = [int(row[3].replace(',', '')) for row in rows]
    assert sum(counts) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ('paramwise_cfg', 'message'),
    [
        (dict(decay_rate=0.8, bias_lr_mult=2), 'takes decay_rate, .*, not bias_lr_mult'),
        (
            dict(decay_rate=0.8, layer_decay_rate=0.7),
            'decay_rate=0.8 and layer_decay_rate=0.7 are two names',
        ),
        (dict(decay_type='blockwise'), "layer_wise, stage_wise or layer_wise_vit, got 'blockwise'"),
        (dict(decay_type='stage_wise', num_layers=3), 'num_layers=3 is below the 4 stages'),
        (dict(custom_keys=['head']), 'custom_keys must be a dict of dicts'),
        (dict(custom_keys=dict(head=2)), 'custom_keys must be a dict of dicts'),
        (
            dict(custom_keys=dict(head=dict(lr_mult='2'))),
            r"lr_mult of custom_keys\['head'\] .* got '2'",
        ),
        (dict(norm_decay_mult=-1), 'norm_decay_mult must be a number from 0 on, got -1'),
        (dict(decay_rate=0), r'\(0, 1\], got 0'),
        (dict(decay_rate=1.5), 'got 1.5'),
        (dict(decay_rate='0.8'), "got '0.8'"),
        (dict(decay_rate=0.8, num_layers=6), 'num_layers=6.* 12 layers'),
    ],
)
def test_wrong_paramwise_cfg_is_named(paramwise_cfg, message):
    with pytest.raises(ValueError, match=message):
        build_wrapper(build_model(6), **paramwise_cfg)


def test_factors_of_a_missing_weight_decay_are_named():
    optimizer = dict(type='SGD', lr=0.1)
    config = dict(
        optimizer=optimizer,
        constructor='LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(custom_keys=dict(head=dict(decay_mult=2))),
    )
    with pytest.raises(UserError, match=r"decay_mult of custom_keys\['head'\] needs weight_decay"):
        build_optim_wrapper(build_model(6), config)


def test_missing_learning_rate_is_named():
    with pytest.raises(ValueError, match='needs lr'):
        build_wrapper(build_model(6), lr=None, decay_rate=0.8)


def test_backbone_without_layers_is_named():
    with pytest.raises(UserError, match=r'no part of Model has get_layer_depth'):
        build_wrapper(Model(nn.Linear(2, 32)), decay_rate=0.8)
