"""Layers by the names that `conv_cfg` and `norm_cfg` give them, with mmcv's builders or, without mmcv, alone.

Where mmcv is installed, every name that it knows may stand in a config. Without it, as for users of other
libraries, the backbone needs only what MMEngine's registry holds and the few layers of torch below.
"""

import importlib.util
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

HAS_MMCV = importlib.util.find_spec('mmcv') is not None
if HAS_MMCV:
    from mmcv import cnn

NORMS = dict(BN=nn.BatchNorm2d, BN2d=nn.BatchNorm2d, SyncBN=nn.SyncBatchNorm)
CONVOLUTIONS = dict(Conv=nn.Conv2d, Conv2d=nn.Conv2d)


def build_conv_layer(conv_cfg: dict | None, *args: Any, **kwargs: Any) -> nn.Module:
    """A convolution of the type that `conv_cfg` names, `nn.Conv2d` for None.

    Args:
        conv_cfg: `dict(type=...)` and further arguments of that type.
        args, kwargs: as of `nn.Conv2d`.

    Raises:
        KeyError: no layer is registered under that name.
    """
    if HAS_MMCV:
        return cnn.build_conv_layer(conv_cfg, *args, **kwargs)
    return _find(conv_cfg or dict(type='Conv2d'), CONVOLUTIONS)(*args, **kwargs)


def build_norm_layer(norm_cfg: dict, num_features: int) -> nn.Module:
    """A norm over `num_features` channels of the type that `norm_cfg` names.

    `requires_grad=False` in it freezes its parameters; eps is 1e-5 unless stated.

    Raises:
        KeyError: no norm is registered under that name.
    """
    if HAS_MMCV:
        return cnn.build_norm_layer(norm_cfg, num_features)[1]
    arguments = {'eps': 1e-5, **norm_cfg}
    requires_grad = arguments.pop('requires_grad', True)
    norm = _find(arguments, NORMS)(num_features)
    for parameter in norm.parameters():
        parameter.requires_grad = requires_grad
    return norm


def _find(cfg: dict, known: dict[str, type]) -> Any:
    """The layer that a config names, its other arguments given."""
    arguments = dict(cfg)
    kind = arguments.pop('type')
    layer = kind if not isinstance(kind, str) else known.get(kind) or MODELS.get(kind)
    if layer is None:
        raise KeyError(f'{kind} is not a layer: known without mmcv are {", ".join(known)}')
    return lambda *args, **kwargs: layer(*args, **arguments, **kwargs)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, skips samples of a residual branch.

    Those that are kept are divided by the probability of being kept.

    Args:
        drop_prob: probability that a sample is skipped.
    """

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0 or not self.training:
            return x
        keep = 1 - self.drop_prob
        shape = (x.shape[0],) + (1,) * (x.dim() - 1)
        # As mmcv draws it, so that a seed gives the same paths: floor(keep + U(0, 1)).
        mask = torch.floor(keep + torch.rand(shape, dtype=x.dtype, device=x.device))
        return x.div(keep) * mask
