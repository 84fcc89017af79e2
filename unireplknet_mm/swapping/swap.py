"""A swap under way: the config, what is asked for, and what was changed and why.

Every rule (`rules/`) reads and changes one `Swap`, and reports each change with its reason.
"""

import copy
import traceback
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from mmengine.config import Config, ConfigDict

from unireplknet_mm.configuration import type_name
from unireplknet_mm.errors import UserError
from unireplknet_mm.models.architecture import NUM_STAGES, resolve_architecture
from unireplknet_mm.models.unireplknet import stage_stride

TASK_OF_SCOPE = dict(mmdet='det', mmseg='seg', mmpretrain='cls')
STRIDES = tuple(stage_stride(stage) for stage in range(NUM_STAGES))  # 4, 8, 16, 32


class SwapError(UserError):
    """A backbone that cannot be swapped; the message says why."""


class FeatureMap(NamedTuple):
    """One output of a backbone or neck: input pixels a map pixel, and channels."""

    stride: int
    channels: int


class Change(NamedTuple):
    """One thing that a rule did: where in the config, what, and why."""

    place: str
    what: str
    why: str

    def __str__(self) -> str:
        return f'{self.place}: {self.what}; {self.why}'


class Swap:
    """The config to change, in place, with the wishes of the user and what the rules found and did.

    Args:
        cfg: the original config, which stays as it is.
        arch: the UniRepLKNet, a letter of Table 4 or a dict of depths and channels.
        pretrained: weights to start from, as `Pretrained` takes them; None for random ones.
        layer_decay: the rate of layer-wise learning rates, True for the published one, None for none.
        output_stride: 8 or 16 for stages that keep the resolution, 32 for plain ones, None to let the rules
            decide.
        keep_optimizer: leave SGD as it is.

    Attributes:
        config: the config under change.
        changes, warnings: what to tell the user.
        path: of the original; None for a config that is in no file.
        old_maps: the original backbone's outputs.
        stage_of: {index of an original output that is read: the stage that takes its place}.

    Raises:
        SwapError: the config is of no toolbox that is supported, or has no backbone.
    """

    def __init__(
        self,
        cfg: Config,
        arch: str | dict = 't',
        pretrained: str | None = None,
        layer_decay: bool | float | None = None,
        output_stride: int | None = None,
        keep_optimizer: bool = False,
    ):
        self.config: ConfigDict = copy.deepcopy(cfg._cfg_dict)
        self.arch = arch
        self.channels = list(resolve_architecture(arch)['channels'])
        self.pretrained = pretrained
        self.layer_decay = layer_decay
        self.output_stride = output_stride
        self.keep_optimizer = keep_optimizer
        self.changes: list[Change] = []
        self.warnings: list[str] = []
        self.old_maps: list[FeatureMap] = []
        self.stage_of: dict[int, int] = {}
        self.path = Path(cfg.filename) if cfg.filename else None
        self.scope = self.config.get('default_scope')
        if self.scope not in TASK_OF_SCOPE:
            raise SwapError(
                f'default_scope of the config is {self.scope!r}; backbones are swapped in configs of '
                f'{", ".join(TASK_OF_SCOPE)}.'
            )
        self.task = TASK_OF_SCOPE[self.scope]
        model = self.config.get('model')
        if not isinstance(model, dict) or not isinstance(model.get('backbone'), dict):
            parts = sorted(key for key, value in (model or {}).items() if isinstance(value, dict))
            raise SwapError(
                f'the config has no model.backbone to swap; its model has {", ".join(parts) or "no parts"}.'
            )
        self.old_backbone: ConfigDict = copy.deepcopy(model['backbone'])

    @property
    def model(self) -> ConfigDict:
        return self.config['model']

    @property
    def old_type(self) -> str:
        """The original backbone's bare type."""
        return type_name(self.old_backbone)

    @property
    def title(self) -> str:
        """What the new backbone is called in messages."""
        return f'UniRepLKNet-{self.arch.upper()}' if isinstance(self.arch, str) else 'UniRepLKNet'

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages that are read, which become the backbone's `out_indices`."""
        return tuple(sorted(set(self.stage_of.values())))

    def stride_of_stage(self, stage: int) -> int:
        return stage_stride(stage, self.output_stride or STRIDES[-1])

    def index_of(self, old_index: int) -> int:
        """Where among the new outputs the one stands that takes the place of an original output."""
        return self.stages.index(self.stage_of[old_index])

    def new_map(self, old_index: int) -> FeatureMap:
        """The map that takes the place of an original output."""
        stage = self.stage_of[old_index]
        return FeatureMap(self.stride_of_stage(stage), self.channels[stage])

    @property
    def new_maps(self) -> list[FeatureMap]:
        """The new backbone's outputs, in order."""
        return [FeatureMap(self.stride_of_stage(i), self.channels[i]) for i in self.stages]

    def set(self, place: str, target: dict, key: str, value: Any, why: str) -> None:
        """Set a key of a dict of the config and report it; nothing where it has that value.

        Args:
            place: the dict's path in the config.
        """
        old = target.get(key)
        if key in target and old == value and isinstance(old, type(value)):
            return
        target[key] = ConfigDict(value) if isinstance(value, dict) else value
        what = f'{describe(old)} -> {describe(value)}' if old is not None else describe(value)
        self.report(f'{place}.{key}' if place else key, what, why)

    def report(self, place: str, what: str, why: str) -> None:
        change = Change(place, what, why)
        if change not in self.changes:
            self.changes.append(change)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def refuse(self, reason: str) -> NoReturn:
        raise SwapError(f'the backbone {self.old_type} cannot be swapped: {reason}')


def summarise(error: Exception) -> str:
    """The kind of an error and the first line of its message, or where it arose if it has none."""
    first_line = ' '.join(str(error).strip().partition('\n')[0].split())
    frames = traceback.extract_tb(error.__traceback__)
    if not first_line and frames:
        last = frames[-1]
        first_line = f'in {last.name} of {Path(last.filename).name}, line {last.lineno}'
    return f'{type(error).__name__}: {first_line}'


def describe(value: Any) -> str:
    """A value of a config in a few characters: dicts by their type."""
    if isinstance(value, dict):
        rest = len(value) - 1 if 'type' in value else len(value)
        return f'{type_name(value) or "dict"}({"..." if rest else ""})'
    if isinstance(value, list | tuple):
        parts = ', '.join(describe(part) for part in value)
        return f'[{parts}]' if isinstance(value, list) else f'({parts})'
    if isinstance(value, float):
        return f'{value:g}'
    return repr(value) if isinstance(value, str) else str(value)
