"""Which layer of its backbone a parameter belongs to, for layer-wise learning rates.

A backbone that says so itself (`get_layer_depth(param_name, prefix)`, mmpretrain's convention) is asked.
For those of mmdet and mmseg that do not, the rule follows from the names of their parameters: the one that
mmpretrain has for the network, or where it has none, the one of mmdet's and mmseg's constructors.
"""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

# A parameter's name -> its layer, 0 for the stem, and the number of layers, the last of which is what
# follows the backbone.
LayerOf = Callable[[str], tuple[int, int]]

STEM = re.compile(
    r'(stem|patch_embed|downsample_layers|cls_token|mask_token|pos_embed|absolute_pos_embed)(\.|$)'
)
STAGE = re.compile(r'(?:stages\.(\d+)|layer([1-4]))\.')


class Backbone(NamedTuple):
    """A backbone somewhere in a model."""

    prefix: str  # of its parameters' names, with the dot
    num_stages: int  # by the names, 0 where they do not speak of stages
    layer_of: LayerOf  # by names with the prefix, or of anything outside


def find_layered_backbones(model: nn.Module) -> list[Backbone]:
    """The backbones of a model whose layers are known; where some say them themselves, those alone."""
    asked = {
        _prefix(name): module for name, module in model.named_modules() if _says_layers(module)
    }
    found = [
        Backbone(prefix, _count_stages(_names(module)), _asking(module, prefix))
        for prefix, module in asked.items()
        if not any(other != prefix and other.startswith(prefix) for other in asked)
    ]
    if found:
        return found
    for name, module in model.named_modules():
        prefix = _prefix(name)
        if any(prefix.startswith(outer.prefix) for outer in found):
            continue
        rule = rule_by_names(names := _names(module))
        if rule is not None:
            found.append(Backbone(prefix, _count_stages(names), _with_prefix(rule, prefix)))
    return found


def find_embeddings(model: nn.Module) -> tuple[str, ...]:
    """The prefixes of what stands in front of a backbone, which belongs to the first layer."""
    return tuple(
        f'{_prefix(name)}embedding.'
        for name, module in model.named_modules()
        if all(
            isinstance(getattr(module, part, None), nn.Module) for part in ('embedding', 'backbone')
        )
    )


def rule_by_names(names: Sequence[str]) -> LayerOf | None:
    """The layers of a backbone with these parameters, by its own names; None for an unknown style."""
    for stem, pattern, rule in (
        ('downsample_layers.0.', r'stages\.(\d+)\.(\d+)\.', _convnext_rule),
        ('patch_embed.', r'stages\.(\d+)\.blocks\.(\d+)\.', _swin_rule),
        ('patch_embed.', r'(layers)\.(\d+)\.', _vit_rule),
    ):
        blocks = [match for name in names if (match := re.match(pattern, name))]
        if blocks and any(name.startswith(stem) for name in names):
            depths: dict[str, int] = {}
            for stage, block in (match.groups() for match in blocks):
                depths[stage] = max(depths.get(stage, 0), int(block) + 1)
            return rule([depths[stage] for stage in sorted(depths)])
    return None


def stage_of(name: str) -> int | None:
    """The stage of a parameter by its backbone's name, from 1 on, 0 for stem and downsampling, None outside.

    As mmdet's and mmseg's `stage_wise` has it, where ConvNeXt's downsampling layers count to the stem.
    """
    if STEM.match(name):
        return 0
    match = STAGE.match(name)
    if match is None:
        return None
    return int(match[1]) + 1 if match[1] else int(match[2])


def _convnext_rule(depths: list[int]) -> LayerOf:
    """12 layers, or 6 where stage 3 has at most nine blocks; three blocks of stage 3 are one."""
    last = 12 if len(depths) > 2 and depths[2] > 9 else 6

    def layer_of(name: str) -> tuple[int, int]:
        parts = name.split('.')
        layer = last + 1
        if parts[0] == 'downsample_layers':
            layer = (0, 2, 3, last)[int(parts[1])]
        elif parts[0] == 'stages':
            layer = (1, 2, min(3 + int(parts[2]) // 3, last), last)[int(parts[1])]
        return layer, last + 2

    return layer_of


def _swin_rule(depths: list[int]) -> LayerOf:
    """A layer a block; the patch merging behind a stage belongs to its last block."""
    num_layers = sum(depths) + 2

    def layer_of(name: str) -> tuple[int, int]:
        parts = name.split('.')
        if STEM.match(name):
            return 0, num_layers
        if parts[0] != 'stages':
            return num_layers - 1, num_layers
        stage = int(parts[1])
        if parts[2] == 'blocks':
            return sum(depths[:stage]) + int(parts[3]) + 1, num_layers
        return sum(depths[: stage + 1]), num_layers

    return layer_of


def _vit_rule(depths: list[int]) -> LayerOf:
    """A layer a block."""
    num_layers = depths[0] + 2

    def layer_of(name: str) -> tuple[int, int]:
        parts = name.split('.')
        if STEM.match(name):
            return 0, num_layers
        if parts[0] == 'layers':
            return int(parts[1]) + 1, num_layers
        return num_layers - 1, num_layers

    return layer_of


def _says_layers(module: nn.Module) -> bool:
    """Whether a module has `get_layer_depth(param_name, prefix)`.

    mmpretrain's classifiers have one without a prefix, and ask their backbone, which may have none.
    """
    ask = getattr(module, 'get_layer_depth', None)
    return callable(ask) and 'prefix' in inspect.signature(ask).parameters


def _asking(module: nn.Module, prefix: str) -> LayerOf:
    return lambda name: module.get_layer_depth(name, prefix)


def _with_prefix(rule: LayerOf, prefix: str) -> LayerOf:
    outside = 'outside of the backbone'  # which no rule knows as a part of it
    return lambda name: rule(name[len(prefix) :] if name.startswith(prefix) else outside)


def _prefix(name: str) -> str:
    return f'{name}.' if name else ''


def _names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_parameters()]


def _count_stages(names: Sequence[str]) -> int:
    return max((stage_of(name) or 0 for name in names), default=0)
