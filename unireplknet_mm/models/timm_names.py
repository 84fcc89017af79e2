"""The names that the weights of a UniRepLKNet classifier have in timm, and back.

    published                 timm
    downsample_layers.0.      stem.
    downsample_layers.i.      stages.i.downsample.
    stages.i.j.               stages.i.blocks.j.
    norm.                     head.norm.
    head.                     head.fc.

timm's own models are named like that (ConvNeXt), and its tools look for a stem and for `head.fc`.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from torch import Tensor

# What every UniRepLKNet has under timm's names, and no other network that we know of.
TIMM_SIGNATURE = 'stages.0.blocks.0.pwconv1.1.weight'

# The first rule that matches counts.
TO_TIMM = (
    (r'downsample_layers\.0\.', 'stem.'),
    (r'downsample_layers\.(\d+)\.', r'stages.\1.downsample.'),
    (r'stages\.(\d+)\.(\d+)\.', r'stages.\1.blocks.\2.'),
    (r'norm\.', 'head.norm.'),
    (r'head\.', 'head.fc.'),
)
FROM_TIMM = (
    (r'stem\.', 'downsample_layers.0.'),
    (r'stages\.(\d+)\.downsample\.', r'downsample_layers.\1.'),
    (r'stages\.(\d+)\.blocks\.(\d+)\.', r'stages.\1.\2.'),
    (r'head\.norm\.', 'norm.'),
    (r'head\.fc\.', 'head.'),
)


def has_timm_names(names: Iterable[str]) -> bool:
    return TIMM_SIGNATURE in names


def to_timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a classifier by timm's names; given are those of a published ImageNet file."""
    return _renamed(weights, TO_TIMM)


def from_timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a classifier by the names of a published ImageNet file; given are timm's."""
    return _renamed(weights, FROM_TIMM)


def _renamed(weights: Mapping[str, Tensor], rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    return OrderedDict((_rename(name, rules), value) for name, value in weights.items())


def _rename(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    return name
