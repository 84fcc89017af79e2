"""Fold the re-parameterization of a trained model and see that it stays the same function."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from unireplknet_mm.errors import UserError
from unireplknet_mm.launch.mistakes import explain_mistakes
from unireplknet_mm.launch.preflight import input_channels, input_size
from unireplknet_mm.models.state_dict import find_state_dict
from unireplknet_mm.models.whole_model import (
    adapt_state_dict,
    find_backbones,
    switch_to_deploy,
)
from unireplknet_mm.weights.reading import CheckpointError, load_checkpoint

# Above this the folding is wrong: rounding in float32 stays well below, but for deep networks with random
# weights, in which it grows to 2.5e-3 of the largest feature. There double precision tells (5e-13).
LARGEST_DIFFERENCE = 1e-3
LARGEST_ROUNDING = 1e-2


def build_model(cfg: Config) -> nn.Module:
    """The config's model with random weights: pretrained ones would be overwritten."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    with explain_mistakes(cfg):
        return MODELS.build(cfg.model).eval()


def read_checkpoint(checkpoint: str) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """The content of a file, and the state dict in it.

    Raises:
        UserError: it cannot be read, or holds no weights.
    """
    content = load_checkpoint(checkpoint)
    try:
        return content, find_state_dict(content)
    except CheckpointError as error:
        raise UserError(f'checkpoint {checkpoint}: {error}') from error


def load_weights(
    model: nn.Module, state_dict: Mapping[str, Tensor], checkpoint: str, config: str
) -> None:
    """Load all weights of a model, the state dict of a file `checkpoint`, that was built from `config`.

    Raises:
        UserError: they do not fit.
    """
    try:
        model.load_state_dict(adapt_state_dict(state_dict, model))
    except CheckpointError as error:
        raise UserError(f'checkpoint {checkpoint}: {error}') from error
    except RuntimeError as error:
        summary = '\n'.join(line[:200] for line in str(error).splitlines()[:3])
        raise UserError(f'{checkpoint} was not trained with {config}.\n{summary}') from error


def fold(model: nn.Module, cfg: Config, config: str, size: Sequence[int] | None = None) -> float:
    """Fold the re-parameterization of a model that was built from the file `config`.

    Args:
        size: height and width of the random input that the features are compared on.

    Returns:
        How far the features changed, relative to the largest.

    Raises:
        UserError: nothing in the model folds, or it changes the features.
    """
    if not any(hasattr(module, 'switch_to_deploy') for module in model.modules()):
        raise UserError(f'the model of {config} has nothing to re-parameterize.')
    size = size or input_size(cfg) or (224, 224)
    channels = input_channels(cfg, model)
    unfolded = copy.deepcopy(list(find_backbones(model).values()))
    difference = _difference_of_folding(model, channels, size)
    is_same = difference <= LARGEST_DIFFERENCE or (
        difference <= LARGEST_ROUNDING
        and unfolded
        and all(
            _difference_of_folding(network.double(), network.in_channels, size)
            <= LARGEST_DIFFERENCE
            for network in unfolded
        )
    )
    if not is_same:
        raise UserError(
            f'the features change by {difference:.1e} (relative) when the model is folded, more '
            f'than {LARGEST_DIFFERENCE:.0e}.\nNothing was written. Are the weights finite?'
        )
    return difference


def _difference_of_folding(model: nn.Module, channels: int, size: tuple[int, int]) -> float:
    """How far features change when a model is folded, in place, relative to the largest."""
    before = _extract_features(model, channels, size)
    switch_to_deploy(model)
    return _relative_difference(before, _extract_features(model, channels, size))


def _extract_features(model: nn.Module, channels: int, size: tuple[int, int]) -> list[Tensor]:
    """What the UniRepLKNets in a model, or else the model, make of a random input, flat.

    Args:
        channels: of the model's input; a UniRepLKNet gets its own number.
        size: height and width of the input.
    """

    def flatten(value: object) -> list:
        if isinstance(value, Tensor):
            return [value]
        return [tensor for part in value for tensor in flatten(part)]

    networks = [(backbone, backbone.in_channels) for backbone in find_backbones(model).values()]
    whole = getattr(model, 'extract_feat', model)
    features = []
    with torch.no_grad():
        for network, network_channels in networks or [(whole, channels)]:
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(1, network_channels, *size, generator=generator)
            dtype = next(network.parameters()).dtype if networks else x.dtype
            features += flatten(network(x.to(dtype)))
    return features


def _relative_difference(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest difference of any two values, relative to the largest value of their tensor.

    NaN, where any of them is none or not finite.
    """
    differences = [
        (new - old).abs().max() / old.abs().max() for old, new in zip(before, after, strict=True)
    ]
    # Unlike Python's max, torch's lets a NaN among finite numbers win.
    return torch.stack(differences).max().item()
