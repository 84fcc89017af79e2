"""Which folding counts as the same function, where rounding in float32 is large."""

import pytest
import torch
from helpers import randomise
from mmengine.config import Config
from torch import nn

from unireplknet_mm.errors import UserError
from unireplknet_mm.launch import folding
from unireplknet_mm.models.unireplknet import UniRepLKNet


@pytest.fixture
def model(monkeypatch) -> nn.Module:
    """A network whose rounding in float32 is above the limit, as it is of deep ones with random weights."""
    monkeypatch.setattr(folding, 'LARGEST_DIFFERENCE', 1e-9)
    network = UniRepLKNet(arch=dict(depths=(1, 1, 1, 1), channels=(8, 16, 24, 32)))
    return nn.ModuleDict(dict(backbone=randomise(network))).eval()


def fold(model: nn.Module) -> float:
    return folding.fold(model, Config(), 'config.py', size=(64, 64))


def test_rounding_is_no_wrong_folding(model):
    assert 1e-9 < fold(model) < 1e-4
    assert model['backbone'].deploy
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize('factor', [1.0001, 1.1])
def test_a_wrong_folding_is_wrong_in_double_precision(model, monkeypatch, factor):
    switch = folding.switch_to_deploy

    def fold_wrongly(module: nn.Module) -> None:
        switch(module)
        next(
            folded for folded in module.modules() if isinstance(folded, nn.Linear)
        ).weight.data *= factor

    monkeypatch.setattr(folding, 'switch_to_deploy', fold_wrongly)
    with pytest.raises(UserError, match='when the model is folded'):
        fold(model)
