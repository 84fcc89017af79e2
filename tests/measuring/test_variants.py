"""Variants of a tiny model: what each is, and that it agrees with its plain form."""

import pytest
import torch
from helpers import SMALL_ARCH
from torch import nn

from unireplknet_mm.errors import UserError
from unireplknet_mm.measuring import variants
from unireplknet_mm.measuring.catalogue import UniRepLKNetClassifier, classifier
from unireplknet_mm.measuring.variants import (
    SETTINGS,
    Prepared,
    Variant,
    difference,
    smallest_norm,
    tolerance,
)
from unireplknet_mm.models import dilated_reparam_block, fused_block
from unireplknet_mm.models.dilated_reparam_block import DilatedReparamBlock
from unireplknet_ops import is_available

BUILD = classifier(lambda: UniRepLKNetClassifier(SMALL_ARCH, num_classes=7))
FORWARD = Variant('small', batch_size=2, size=(64, 48))
STEP = FORWARD._replace(form='train', mode='step')


def distance(variant: Variant) -> float:
    """From its plain form."""
    actual, expected = (Prepared(one, BUILD).outputs() for one in (variant, variant.plain()))
    return difference(actual, expected, smallest_norm(variant))


@pytest.mark.parametrize(
    'changes',
    [
        dict(),
        dict(layout='channels_last'),
        dict(form='train'),
        dict(dtype='bf16'),
        dict(dtype='fp16', layout='channels_last'),
        *(dict(setting=name) for name in SETTINGS if 'frozen' not in name and 'norm' not in name),
    ],
)
def test_inference_agrees_with_the_plain_form(changes):
    variant = FORWARD._replace(**changes)
    assert distance(variant) < tolerance(variant) / 2


@pytest.mark.parametrize(
    'changes',
    [
        dict(),
        dict(layout='channels_last'),
        dict(dtype='bf16'),
        dict(setting='frozen_stages=2'),
        dict(setting='norm_eval'),
        dict(setting='backbone.requires_grad_(False)'),
    ],
)
def test_a_step_agrees_with_the_plain_form(changes):
    variant = STEP._replace(**changes)
    assert distance(variant) < tolerance(variant) / 2


class Drawing(nn.Conv2d):
    """A network that learns from a random half, as detectors do from some of their proposals."""

    def __init__(self):
        super().__init__(3, 7, 1)

    def forward(self, x):
        y = super().forward(x)
        return (y * torch.randint(2, y.shape)).mean((2, 3))


@pytest.mark.parametrize('variant', [FORWARD, STEP])
def test_what_is_drawn_is_drawn_alike(variant):
    before = torch.random.get_rng_state()
    actual, expected = (
        Prepared(one, classifier(Drawing)).outputs() for one in (variant, variant.plain())
    )
    assert difference(actual, expected) < 1e-6
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_wrong_gradient_of_one_layer_shows():
    wrong = Prepared(STEP, BUILD)
    wrong.model.backbone.stages[1][0].norm.bias.register_hook(torch.zeros_like)
    found = difference(wrong.outputs(), Prepared(STEP, BUILD).outputs(), smallest_norm(STEP))
    assert found > tolerance(STEP)


def test_compiled_is_the_same_function(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda model: compiled.append(model) or model)
    assert distance(FORWARD._replace(compiled=True)) < 1e-5
    assert len(compiled) == 1, 'the plain form is not'


def test_dtype_layout_and_form():
    prepared = Prepared(FORWARD._replace(dtype='bf16', layout='channels_last'), BUILD)
    weight = prepared.task.model.backbone.stages[1][0].pwconv1[1].weight
    assert weight.dtype == prepared.batch.dtype == torch.bfloat16
    assert prepared.batch.is_contiguous(memory_format=torch.channels_last)
    assert not prepared.model.training
    blocks = [m for m in prepared.model.modules() if isinstance(m, DilatedReparamBlock)]
    assert blocks and all(block.deploy for block in blocks)

    step = Prepared(STEP._replace(dtype='bf16'), BUILD)
    assert {p.dtype for p in step.model.parameters()} == {torch.float32}, 'autocast'
    assert step.model.training


def test_settings_do_what_they_say():
    def prepare(name, base=FORWARD):
        return Prepared(base._replace(setting=name), BUILD).model

    def inference_tensors(model):
        return {p.is_inference() for p in model.parameters()}

    assert inference_tensors(prepare('built in inference_mode')) == {True}
    assert inference_tensors(prepare('')) == {False}
    plain = FORWARD._replace(dtype='bf16', setting='no_grad').plain()
    assert plain == FORWARD._replace(form='train', setting='gradients', implementation='plain')
    assert not any(p.requires_grad for p in prepare('requires_grad_(False)').parameters())
    frozen = prepare('frozen_stages=2', STEP).backbone
    assert not any(p.requires_grad for p in frozen.stages[:2].parameters())
    assert all(p.requires_grad for p in frozen.stages[2:].parameters())
    norms = [m for m in prepare('norm_eval', STEP).modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(norm.training for norm in norms)
    parameters = prepare('backbone.requires_grad_(False)', STEP).named_parameters()
    trained = [name for name, parameter in parameters if parameter.requires_grad]
    assert trained == ['head.weight', 'head.bias']


def test_settings_of_the_backbone_need_one():
    build = classifier(lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 48, 2)))
    with pytest.raises(UserError, match='the model has no UniRepLKNet'):
        Prepared(FORWARD._replace(setting='norm_eval', form='train'), build)


def test_a_step_changes_the_weights():
    prepared = Prepared(STEP, BUILD)
    before = prepared.model.head.weight.detach().clone()
    assert prepared().isfinite()
    assert not torch.equal(prepared.model.head.weight, before)
    prepared.release_gradients()
    assert all(p.grad is None for p in prepared.model.parameters())
    weights = sum(p.nbytes for p in prepared.model.parameters())
    assert prepared.resident_bytes() > 3 * weights, 'weights and two moments of AdamW'


def test_implementation_is_forced_within_a_call_only(monkeypatch):
    monkeypatch.setenv('UNIREPLKNET_DWCONV', 'op')
    with variants.forced('native'):
        assert variants.os.environ['UNIREPLKNET_DWCONV'] == 'native'
    assert variants.os.environ['UNIREPLKNET_DWCONV'] == 'op'
    monkeypatch.delenv('UNIREPLKNET_DWCONV')
    with variants.forced('native'):
        pass
    assert 'UNIREPLKNET_DWCONV' not in variants.os.environ


@pytest.mark.parametrize(
    ('owner', 'name'),
    [
        (fused_block, 'gelu_grn'),
        (fused_block, 'scaled_linear'),
        (dilated_reparam_block, 'dilated_reparam'),
        (fused_block, 'contracted_and_scaled'),
    ],
)
def test_the_plain_form_takes_nothing_of_the_suite(owner, name, monkeypatch):
    """A rearranged form that is wrong differs from it."""
    right = getattr(owner, name)

    def wrong(*args, **kwargs):
        result = right(*args, **kwargs)
        return (result[0].abs(), *result[1:]) if isinstance(result, tuple) else result.abs()

    monkeypatch.setattr(owner, name, wrong)
    prepared = Prepared(STEP.plain(), BUILD).outputs()
    if is_available('cpu'):
        assert difference(Prepared(STEP, BUILD).outputs(), prepared) > 1e-2
    monkeypatch.undo()
    assert difference(prepared, Prepared(STEP.plain(), BUILD).outputs()) == 0


def test_difference():
    one = torch.ones(3)
    assert difference([one], [one]) == 0
    assert difference([one, 1.1 * one], [one, one]) == pytest.approx(0.1, rel=1e-4)
    assert difference([one * float('nan')], [one]) == float('inf')
    assert difference([torch.ones(4)], [one]) == float('inf')
    assert difference([one], [one, one]) == float('inf')
    rounding = 1e-6 * one
    assert difference([one, -rounding], [one, rounding]) == pytest.approx(2)
    assert difference([one, -rounding], [one, rounding], 1e-2) == pytest.approx(2e-4, rel=1e-4)
    assert difference([one, -0.1 * one], [one, 0.1 * one], 1e-2) == pytest.approx(2, rel=1e-4)
