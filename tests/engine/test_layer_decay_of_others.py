"""Layer-wise learning rates beside the toolboxes' own constructors, and where those know no layers."""

import importlib
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import unireplknet_mm  # noqa: F401
from unireplknet_mm.errors import UserError
from unireplknet_mm.launch.mistakes import explain_mistakes

OURS = 'LayerDecayOptimWrapperConstructor'
OF_MMPRETRAIN = 'LearningRateDecayOptimWrapperConstructor'
OF_OTHERS = 'LearningRateDecayOptimizerConstructor'
NO_DECAY = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0)

CONVNEXT = dict(
    type='mmpretrain.ConvNeXt', arch=dict(depths=[2, 2, 11, 2], channels=[4, 8, 12, 16])
)
SHALLOW_CONVNEXT = CONVNEXT | dict(arch=dict(depths=[1, 1, 5, 1], channels=[4, 8, 12, 16]))
SWIN = dict(
    type='mmpretrain.SwinTransformer',
    arch=dict(embed_dims=8, depths=[2, 1, 3, 1], num_heads=[1, 2, 4, 8]),
    img_size=64,
)
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
    img_size=32,
)
SWIN_ELSEWHERE = dict(embed_dims=8, depths=(2, 1, 3, 1), num_heads=(1, 2, 4, 8), window_size=4)
UNIREPLKNET = dict(
    type='UniRepLKNet',
    arch=dict(depths=(2, 2, 6, 2), channels=(4, 8, 16, 32), kernel_sizes=(3, 5, 5, 5)),
)


class Model(BaseModule):
    def __init__(self, backbone: dict):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))

    def get_layer_depth(self, name: str) -> tuple[int, int]:
        """What mmpretrain's classifiers have."""
        return self.backbone.get_layer_depth(name, 'backbone.')


def rounded(number: float) -> float:
    """Without what another order of the same factors changes."""
    return float(f'{number:.9e}')


def groups_of(model: nn.Module, constructor: str, scope: str = 'mmengine', **paramwise_cfg) -> dict:
    """Learning rate and weight decay of every parameter."""
    with DefaultScope.overwrite_default_scope(scope):
        wrapper = build_optim_wrapper(
            model,
            dict(
                optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
                constructor=constructor,
                paramwise_cfg=paramwise_cfg,
            ),
        )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (rounded(group['lr']), rounded(group['weight_decay']))
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


def rates(groups: dict) -> dict:
    return {name: lr for name, (lr, _) in groups.items()}


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
@pytest.mark.parametrize(
    ('backbone', 'paramwise_cfg'),
    [
        (CONVNEXT, dict(decay_rate=0.7, decay_type='layer_wise', num_layers=12)),
        (SHALLOW_CONVNEXT, dict(decay_rate=0.95, num_layers=6)),
        (CONVNEXT, dict(decay_rate=0.9, decay_type='stage_wise', num_layers=12)),
        (SHALLOW_CONVNEXT, dict(decay_rate=0.9, decay_type='stage_wise', num_layers=6)),
    ],
    ids=str,
)
def test_what_mmdet_and_mmseg_know_gets_their_rates(scope, backbone, paramwise_cfg):
    pytest.importorskip(f'{scope}.engine')
    pytest.importorskip('mmpretrain.models')
    model = Model(backbone)
    theirs = groups_of(model, OF_OTHERS, scope, **paramwise_cfg)
    assert groups_of(model, OURS, scope, **paramwise_cfg) == theirs
    assert len(set(rates(theirs).values())) > 4


@pytest.mark.parametrize(
    'backbone', [CONVNEXT, SHALLOW_CONVNEXT, SWIN, VIT], ids=lambda b: b['type']
)
@pytest.mark.parametrize(
    'custom_keys',
    [
        {},
        {
            '.cls_token': dict(decay_mult=0.0),
            '.pos_embed': dict(decay_mult=0.0),
            '.relative_position_bias_table': dict(decay_mult=0.0),
            'stages.1': dict(decay_mult=0.5),
        },
    ],
    ids=['plain', 'custom keys'],
)
def test_what_mmpretrain_knows_gets_its_rates_and_decay(backbone, custom_keys):
    pytest.importorskip('mmpretrain.engine')
    model = Model(backbone)
    cfg = dict(layer_decay_rate=0.75, custom_keys=custom_keys)
    theirs = groups_of(model, OF_MMPRETRAIN, 'mmpretrain', **cfg, **NO_DECAY)
    assert groups_of(model, OURS, 'mmpretrain', **cfg) == theirs
    cfg.update(norm_decay_mult=1.0, bias_decay_mult=0.25, flat_decay_mult=2.0)
    theirs = groups_of(model, OF_MMPRETRAIN, 'mmpretrain', **cfg)
    assert groups_of(model, OURS, 'mmpretrain', **cfg) == theirs
    assert len({decay for _, decay in theirs.values()}) > 1


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_swin_of_mmdet_and_mmseg_has_the_layers_of_mmpretrain_s(scope):
    pytest.importorskip(f'{scope}.models')
    pytest.importorskip('mmpretrain.models')
    model = Model(dict(type=f'{scope}.SwinTransformer', **SWIN_ELSEWHERE))
    with pytest.raises(NotImplementedError):
        groups_of(model, OF_OTHERS, scope, decay_rate=0.8, decay_type='layer_wise', num_layers=7)
    found = rates(groups_of(model, OURS, scope, decay_rate=0.8))
    peer = rates(groups_of(Model(SWIN), OURS, scope, decay_rate=0.8))

    def by_part(table: dict) -> dict:
        parts = {}
        for name, rate in table.items():
            match = re.match(
                r'backbone\.(patch_embed|stages\.\d\.(blocks\.\d|downsample)|\w+)', name
            )
            parts.setdefault(match[0] if match else 'head', set()).add(rate)
        assert all(len(values) == 1 for values in parts.values())
        return {part: rate for part, (rate,) in parts.items()}

    found, peer = by_part(found), by_part(peer)
    common = found.keys() & peer.keys()
    assert len(common) > 10
    assert {part: found[part] for part in common} == {part: peer[part] for part in common}
    # Beside the norms of other outputs, which get the full rate as that of the classifier does.
    assert found.keys() - common == {f'backbone.norm{i}' for i in range(3)}
    assert all(found[f'backbone.norm{i}'] == peer['backbone.norm3'] == 1e-3 for i in range(3))


@pytest.mark.parametrize('name', ['BEiT', 'MAE'])
def test_transformers_of_mmseg_get_its_rates(name):
    pytest.importorskip('mmseg.engine')
    backbone = dict(
        type=f'mmseg.{name}', img_size=(32, 32), embed_dims=16, num_layers=3, num_heads=2
    )
    model = Model(backbone)
    cfg = dict(decay_rate=0.6, decay_type='layer_wise_vit', num_layers=3)
    theirs = rates(groups_of(model, OF_OTHERS, 'mmseg', **cfg))
    assert rates(groups_of(model, OURS, 'mmseg', **cfg)) == theirs


def test_stages_of_any_backbone():
    found = rates(groups_of(Model(UNIREPLKNET), OURS, decay_rate=0.5, decay_type='stage_wise'))
    expected = {'downsample_layers.3.0.weight': 5, 'stages.0.0.gamma': 4, 'stages.3.1.gamma': 1}
    for name, exponent in expected.items():
        assert found[f'backbone.{name}'] == rounded(1e-3 * 0.5**exponent)
    assert found['backbone.norm3.weight'] == found['head.0.weight'] == 1e-3
    pytest.importorskip('mmdet.models')
    found = rates(
        groups_of(
            Model(dict(type='mmdet.SwinTransformer', **SWIN_ELSEWHERE)),
            OURS,
            decay_rate=0.5,
            decay_type='stage_wise',
        )
    )
    assert found['backbone.patch_embed.projection.weight'] == rounded(1e-3 * 0.5**5)
    assert found['backbone.stages.2.downsample.reduction.weight'] == rounded(1e-3 * 0.5**2)


def test_stages_of_a_backbone_without_any_are_explained():
    pytest.importorskip('mmpretrain.models')
    with pytest.raises(UserError, match="this one has none: use 'layer_wise'"):
        groups_of(Model(VIT), OURS, decay_rate=0.5, decay_type='stage_wise')


def test_custom_keys_set_rate_decay_and_anything_else():
    model = Model(UNIREPLKNET)
    plain = groups_of(model, OURS, decay_rate=0.5)
    keys = {
        'head': dict(lr_mult=10),
        'head.1': dict(lr_mult=3, decay_mult=0.5),
        'stages.1': dict(lr_mult=0.0, betas=(0.5, 0.6)),
    }
    found = groups_of(model, OURS, decay_rate=0.5, custom_keys=keys)
    for name, (lr, decay) in found.items():
        lr_before, decay_before = plain[name]
        if name.startswith('head.1'):
            assert (lr, decay) == (3e-3, 0.025)
        elif name.startswith('head'):
            assert (lr, decay) == (1e-2, decay_before)
        elif '.stages.1.' in name:
            assert (lr, decay) == (0.0, decay_before)
        else:
            assert (lr, decay) == (lr_before, decay_before)
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
            constructor=OURS,
            paramwise_cfg=dict(custom_keys=keys),
        ),
    )
    groups = [g for g in wrapper.optimizer.param_groups if g['betas'] == (0.5, 0.6)]
    names = {name for group in groups for name in group['param_names']}
    assert names == {name for name, _ in model.named_parameters() if '.stages.1.' in name}


def test_shared_parameters_are_in_one_group():
    model = Model(UNIREPLKNET)
    model.head[0] = model.shared = nn.Linear(4, 4)
    found = groups_of(model, OURS, decay_rate=0.5, bypass_duplicate=True)
    assert found.keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize(
    ('scope', 'constructor'),
    [('mmdet', OF_OTHERS), ('mmseg', OF_OTHERS), ('mmpretrain', OF_MMPRETRAIN)],
)
def test_a_toolbox_s_constructor_that_does_not_know_the_backbone_is_explained(scope, constructor):
    importlib.import_module(f'{scope}.engine')
    model = nn.ModuleDict(dict(backbone=nn.Linear(2, 2)))
    model.backbone = model['backbone']
    cfg = Config(dict(optim_wrapper=dict(constructor=f'{scope}.{constructor}')))
    settings = dict(decay_rate=0.9, decay_type='layer_wise', num_layers=6)
    with pytest.raises(UserError) as info, explain_mistakes(cfg):
        groups_of(model, constructor, scope, **settings)
    assert str(info.value) == (
        f'{constructor} of optim_wrapper does not know the layers of this backbone.\n'
        "Use constructor='LayerDecayOptimWrapperConstructor', which asks the backbone and takes the same "
        'paramwise_cfg.'
    )
    with pytest.raises(NotImplementedError), explain_mistakes(cfg):
        raise NotImplementedError  # of another part of a training


def test_a_classifier_without_layers_is_named():
    """It has a get_layer_depth that asks its backbone in vain."""
    pytest.importorskip('mmpretrain.models')
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='mmpretrain.LeNet5'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=84),
        )
    )
    with pytest.raises(UserError, match='no part of ImageClassifier has get_layer_depth'):
        groups_of(model, OURS, 'mmpretrain', decay_rate=0.5)


def test_frozen_layers_take_no_step_with_a_factor_of_zero():
    model = Model(UNIREPLKNET)
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1e-3),
            constructor=OURS,
            paramwise_cfg=dict(custom_keys={'backbone': dict(lr_mult=0)}),
        ),
    )
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    wrapper.step()
    moved = {
        name.split('.')[0]
        for (name, p), old in zip(model.named_parameters(), before, strict=True)
        if not torch.equal(p, old)
    }
    assert moved == {'head'}
