"""Layer-wise learning-rate decay: one optimizer-wrapper constructor for every task.

A pretrained backbone is fine-tuned with smaller steps in its earlier layers. The backbone says
which layer a parameter belongs to (`layer_depth.py`); UniRepLKNet divides itself into 12 layers
between the stem (0) and what follows the last stage (13), as ConvNeXt does. The paper's appendix B
states the learning rates and leaves the decay to the published configs, whose rule this is.

One difference from the published code: it exempts 1-d parameters and biases from weight decay, but
not GRN's gamma and beta, which it stores as (1, 1, 1, C). They scale and shift a normalised
response as those of a norm do, and the code of ConvNeXt V2, where GRN comes from, does not decay
them. They are not decayed here either.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm, _InstanceNorm
from torch import nn

from unireplknet_mm.engine.layer_depth import (
    Backbone,
    find_embeddings,
    find_layered_backbones,
    stage_of,
)
from unireplknet_mm.errors import ArgumentError

NORMS = (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm)
DECAY_TYPES = ('layer_wise', 'stage_wise', 'layer_wise_vit')
DECAY_MULTIPLIERS = ('norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult')
KNOWN_KEYS = (
    'decay_rate',
    'num_layers',
    'decay_type',
    'custom_keys',
    *DECAY_MULTIPLIERS,
    'bypass_duplicate',
)


class GroupKey(NamedTuple):
    """What the parameters of a group have in common."""

    layer_id: int
    decay_mult: float
    custom_key: str  # '' for none


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rate of a parameter: `lr * decay_rate ** (num_layers + 1 - layer)`.

    Heads and necks, layer `num_layers + 1`, get the full rate; an `embedding` in front of the backbone is in
    layer 0, as its stem. Norms, biases, GRN's gamma and beta
    and all other 1-d parameters get no weight decay. A parameter group holds `lr`, `weight_decay`,
    `lr_scale`, `layer_id` and `param_names`; a table of the layers goes to the log.

    The model is, or has anywhere in it, a backbone with `get_layer_depth(param_name, prefix) -> (layer,
    number of layers)`, mmpretrain's convention, which counts the stem and the heads as layers too; or one
    whose parameters have the names of ConvNeXt, Swin or a vision transformer in mmdet and mmseg.

    It also understands the arguments of `LearningRateDecayOptimizerConstructor` (mmdet, mmseg) and
    `LearningRateDecayOptimWrapperConstructor` (mmpretrain), with the same rates. What it decays differs from
    mmpretrain's in the defaults: there norms, biases and 1-d parameters are decayed unless their factors are
    0, and with a custom key also what these factors exempt.

    Args:
        optim_wrapper_cfg: config of the optimizer wrapper; its `optimizer` states `lr`.
        paramwise_cfg: a dict with any of these:

            - `decay_rate`, or `layer_decay_rate` as in mmpretrain: in (0, 1]; default 1, the full rate in
              every layer.
            - `num_layers`: the layers of the backbone between stem and heads; default: what the backbone
              says; another number is an error.
            - `decay_type`: 'layer_wise' (default), which 'layer_wise_vit' is as well, or 'stage_wise': the
              layer of stage i is i, that of stem and downsampling 0, that of the heads `num_layers + 1`,
              where `num_layers` may be any number from that of the stages on, their default.
            - `custom_keys`: {part of a name: dict(lr_mult=..., decay_mult=...)}, the longest that is in a
              parameter's name. `lr_mult` multiplies the layer's rate, `decay_mult` the optimizer's weight
              decay, in place of the factors below; anything else goes into the parameter group.
            - `norm_decay_mult`, `bias_decay_mult`, `flat_decay_mult`: factors of the weight decay of
              norms (GRN's gamma and beta among them), other biases, and other 1-d parameters; default 0.
            - `bypass_duplicate`: shared parameters are in one group in any case.

    Raises:
        ArgumentError: `lr` is missing, `paramwise_cfg` has another key, a value is out of range, the layers
            of no part of the model are known.

    Example::

        optim_wrapper = dict(
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            constructor='LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(decay_rate=0.8, custom_keys={'head': dict(lr_mult=10)}))
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        # The base class skips `add_params` for an empty config, hence the default in writing.
        super().__init__(optim_wrapper_cfg, {'decay_rate': 1.0, **_with_our_names(paramwise_cfg)})

    def _validate_cfg(self) -> None:
        cfg, name = self.paramwise_cfg, type(self).__name__
        unknown = sorted(set(cfg) - set(KNOWN_KEYS))
        if unknown:
            raise ArgumentError(
                f'paramwise_cfg of {name} takes {", ".join(KNOWN_KEYS)}, not {", ".join(unknown)}'
            )
        if not _is_number(cfg['decay_rate']) or not 0 < cfg['decay_rate'] <= 1:
            raise ArgumentError(f'decay_rate must lie in (0, 1], got {cfg["decay_rate"]!r}')
        if cfg.get('decay_type', 'layer_wise') not in DECAY_TYPES:
            raise ArgumentError(
                f'decay_type must be {", ".join(DECAY_TYPES[:-1])} or {DECAY_TYPES[-1]}, '
                f'got {cfg["decay_type"]!r}'
            )
        custom_keys = cfg.get('custom_keys', {})
        if not isinstance(custom_keys, Mapping) or not all(
            isinstance(settings, Mapping) for settings in custom_keys.values()
        ):
            raise ArgumentError(
                f'custom_keys must be a dict of dicts, as in {{"head": dict(lr_mult=10)}}, got {custom_keys}'
            )
        factors = {key: cfg[key] for key in DECAY_MULTIPLIERS if cfg.get(key) is not None}
        for part, settings in custom_keys.items():
            factors |= {
                f'{key} of custom_keys[{part!r}]': settings[key]
                for key in ('lr_mult', 'decay_mult')
                if key in settings
            }
        for factor, value in factors.items():
            if not _is_number(value) or value < 0:
                raise ArgumentError(f'{factor} must be a number from 0 on, got {value!r}')
            if 'decay_mult' in factor and self.base_wd is None:
                raise ArgumentError(f'{factor} needs weight_decay in the config of the optimizer')
        if self.base_lr is None:
            raise ArgumentError(f'{name} needs lr in the config of the optimizer')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Append to `params` one group for each layer, weight decay and custom key."""
        backbones = find_layered_backbones(module)
        if not backbones:
            raise ArgumentError(
                f'{type(self).__name__} asks the backbone which layer a parameter belongs to, but no part of '
                f'{type(module).__name__} has get_layer_depth(param_name, prefix), or the names of ConvNeXt, '
                'Swin or a vision transformer: add it, or use DefaultOptimWrapperConstructor'
            )
        embeddings = find_embeddings(module)
        in_norms = {
            f'{prefix}.{name}' if prefix else name
            for prefix, part in module.named_modules()
            if isinstance(part, NORMS)
            for name, _ in part.named_parameters(recurse=False)
        }
        custom_keys = self.paramwise_cfg.get('custom_keys', {})
        by_length = sorted(sorted(custom_keys), key=len, reverse=True)
        groups: dict[GroupKey, dict[str, Any]] = {}
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            layer_id, num_layers = self._layer_of(name, backbones)
            if name.startswith(embeddings):
                layer_id = 0
            custom_key = next((key for key in by_length if key in f'.{name}'), '')
            settings = dict(custom_keys.get(custom_key, {}))
            lr_mult = settings.pop('lr_mult', 1.0)
            decay_mult = settings.pop('decay_mult', self._decay_mult(name, param, in_norms))
            key = GroupKey(layer_id, float(decay_mult), custom_key)
            if key not in groups:
                lr_scale = self.paramwise_cfg['decay_rate'] ** (num_layers - 1 - layer_id) * lr_mult
                group = dict(params=[], param_names=[], layer_id=layer_id)
                group.update(lr_scale=lr_scale, lr=lr_scale * self.base_lr)
                if decay_mult == 0:
                    group['weight_decay'] = 0.0
                elif self.base_wd is not None:
                    group['weight_decay'] = self.base_wd * decay_mult
                groups[key] = group | settings
            groups[key]['params'].append(param)
            groups[key]['param_names'].append(name)
        params.extend(groups[key] for key in sorted(groups))
        print_log(self._describe(groups), logger='current')

    def _layer_of(self, name: str, backbones: list[Backbone]) -> tuple[int, int]:
        """The layer of a parameter, and the number of layers with stem and heads."""
        of_parameter = (part for part in backbones if name.startswith(part.prefix))
        backbone = next(of_parameter, backbones[0])  # outside all of them: of the heads
        asked = self.paramwise_cfg.get('num_layers')
        if self.paramwise_cfg.get('decay_type') == 'stage_wise':
            return _layer_by_stage(name, backbone, asked)
        layer_id, num_layers = backbone.layer_of(name)
        if asked not in (None, num_layers - 2):
            raise ArgumentError(
                f'paramwise_cfg has num_layers={asked}, but the backbone divides itself into '
                f'{num_layers - 2} layers'
            )
        return layer_id, num_layers

    def _decay_mult(self, name: str, param: nn.Parameter, in_norms: set[str]) -> float:
        """The factor of a parameter's weight decay."""
        kind = name.rpartition('.')[2]
        if name in in_norms or (param.ndim > 1 and kind in ('gamma', 'beta')):
            rule = 'norm_decay_mult'
        elif kind == 'bias':
            rule = 'bias_decay_mult'
        elif param.ndim <= 1:
            rule = 'flat_decay_mult'
        else:
            return 1.0
        return self.paramwise_cfg.get(rule) or 0.0

    def _describe(self, groups: dict[GroupKey, dict]) -> str:
        """A table of the layers, one line each, and what became of the custom keys."""
        decay_rate = self.paramwise_cfg['decay_rate']
        lines = [
            f'Layer-wise learning rates, decay rate {decay_rate}',
            f'{"layer":>5} {"lr":>10} {"lr scale":>9} {"parameters":>13} {"not decayed":>12}',
        ]
        sizes = {key: sum(p.numel() for p in group['params']) for key, group in groups.items()}
        for layer_id in sorted({key.layer_id for key in groups}):
            keys = sorted((k for k in groups if k.layer_id == layer_id), key=lambda k: k.custom_key)
            group = groups[keys[0]]  # one without a custom key, if there is one
            undecayed = sum(sizes[key] for key in keys if key.decay_mult == 0)
            lines.append(
                f'{layer_id:>5} {group["lr"]:>10.3e} {group["lr_scale"]:>9.4f} '
                f'{sum(sizes[key] for key in keys):>13,} {undecayed:>12,}'
            )
        for custom_key, settings in self.paramwise_cfg.get('custom_keys', {}).items():
            count = sum(size for key, size in sizes.items() if key.custom_key == custom_key)
            stated = ', '.join(f'{name} {value}' for name, value in settings.items())
            lines.append(f'custom key {custom_key}: {count:,} parameters, {stated}')
        return '\n'.join(lines)


def _with_our_names(paramwise_cfg: Mapping | None) -> dict[str, Any]:
    """The config with mmpretrain's name of the rate replaced by ours."""
    if not isinstance(paramwise_cfg, Mapping | None):
        raise ArgumentError(f'paramwise_cfg must be a dict, got {paramwise_cfg!r}')
    cfg = dict(paramwise_cfg or {})
    if 'layer_decay_rate' in cfg:
        rate = cfg.pop('layer_decay_rate')
        if cfg.setdefault('decay_rate', rate) != rate:
            raise ArgumentError(
                f'decay_rate={cfg["decay_rate"]!r} and layer_decay_rate={rate!r} are two names of one '
                'number: state one of them'
            )
    return cfg


def _layer_by_stage(name: str, backbone: Backbone, num_layers: int | None) -> tuple[int, int]:
    """The layer of a parameter by its stage, and the number of layers, as mmdet and mmseg have them."""
    if backbone.num_stages == 0:
        raise ArgumentError(
            "decay_type='stage_wise' needs a backbone with stages (parameters named stages.0 and so on), "
            "this one has none: use 'layer_wise'"
        )
    num_layers = backbone.num_stages if num_layers is None else num_layers
    if num_layers < backbone.num_stages:
        raise ArgumentError(
            f'num_layers={num_layers} is below the {backbone.num_stages} stages of the backbone: leave it out'
        )
    is_inside = name.startswith(backbone.prefix)
    stage = stage_of(name[len(backbone.prefix) :]) if is_inside else None
    return num_layers + 1 if stage is None else stage, num_layers + 2


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
