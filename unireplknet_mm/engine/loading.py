"""MMEngine's `load_state_dict` for models with a UniRepLKNet in them: raw ImageNet files load.

`mmengine.runner.load_checkpoint`, and with it mmpretrain's `get_model` and the inferencers of mmdet and
mmseg, find no name of a raw file in the model, say so in a warning and go on with random weights. Those
functions have no hook, so the one that they all end in is replaced; other models do not notice.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.runner import checkpoint
from torch import Tensor, nn

from unireplknet_mm.models.state_dict import find_prefix, find_state_dict, unwrap_names
from unireplknet_mm.models.whole_model import adapt_state_dict, find_backbones, unwrap_model
from unireplknet_mm.weights.errors import CheckpointError


def adapting(load_state_dict: Callable) -> Callable:
    """`load_state_dict` of MMEngine that first gives the weights of a UniRepLKNet the model's names."""

    @functools.wraps(load_state_dict)
    def load(module: nn.Module, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        return load_state_dict(module, adapt_if_own(module, state_dict), *args, **kwargs)

    load.adapts = True
    return load


def adapt_if_own(module: nn.Module, state_dict: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The state dict under the names of `module`, or as it is where either has no UniRepLKNet.

    Raises:
        CheckpointError: both have one, and they do not fit.
    """
    if not find_backbones(module):
        return state_dict
    try:
        weights = find_state_dict(state_dict)
    except CheckpointError:  # weights of something else, or none at all: MMEngine says so
        return state_dict
    if find_prefix(unwrap_names(weights)) is None:
        return state_dict
    return adapt_state_dict(weights, unwrap_model(module))


if not hasattr(checkpoint.load_state_dict, 'adapts'):
    checkpoint.load_state_dict = adapting(checkpoint.load_state_dict)
