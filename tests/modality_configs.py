"""What the tests of the modalities' configs share: a model of full size on the meta device, and its sizes."""

from pathlib import Path

import torch
from helpers import load_config
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.utils import import_modules_from_strings
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unireplknet_mm.models.whole_model import on_meta, switch_to_deploy


def build(path: Path) -> tuple[Config, nn.Module]:
    """A config and its model, without memory for its weights."""
    cfg = load_config(path)
    import_modules_from_strings(**cfg.custom_imports)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), on_meta():
        model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor})
    return cfg, model


def millions(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def step_and_measure(path: Path) -> tuple[list[float], float]:
    """A training step of two samples of `input_shape`, in which every parameter gets a gradient.

    Returns:
        Millions of parameters in training and in deploy form, and GFLOPs, in multiply-adds, of a sample in
        deploy form.
    """
    cfg, model = build(path)
    inputs = torch.empty(2, *cfg.input_shape, device='meta')
    classes = cfg.data_preprocessor.num_classes
    samples = [DataSample().set_gt_score(torch.empty(classes, device='meta')) for _ in inputs]
    losses = model.train()(inputs, samples, mode='loss')
    losses['loss'].backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    sizes = [millions(model)]
    switch_to_deploy(model.eval())
    sizes.append(millions(model))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert model(inputs[:1]).shape == (1, classes)
    return sizes, counter.get_total_flops() / 2e9
