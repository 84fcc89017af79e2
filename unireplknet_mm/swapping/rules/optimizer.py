"""The optimiser: AdamW in place of SGD, learning rates of the layers, settings for the original's parameters.

SGD with the rates of a ResNet trains a ConvNet with LayerNorm and layer scale badly or not at all; the paper
trains all tasks with AdamW. A config that has AdamW keeps it with its learning rate. Either way norms, layer
scales and biases are not decayed: the names by which originals exempt them, such as `norm`, are not those of
UniRepLKNet.
"""

import re
from collections.abc import Iterable
from typing import Any

from mmengine.config import ConfigDict

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.engine.layer_decay import DECAY_MULTIPLIERS
from unireplknet_mm.swapping.maps import trained_parameters
from unireplknet_mm.swapping.recipes import (
    BETAS,
    WARM_UP_ITERATIONS,
    WEIGHT_DECAY,
    learning_rate,
    published_rates,
)
from unireplknet_mm.swapping.swap import Swap, describe
from unireplknet_mm.swapping.trial import parameter_names

REPLACED = ('SGD', 'RMSprop', 'LARS')
PLACE = 'optim_wrapper'
CONSTRUCTOR = 'LayerDecayOptimWrapperConstructor'
LAYERWISE = (  # constructors of the toolboxes that divide the original backbone into layers
    'LearningRateDecayOptimizerConstructor',
    'LayerDecayOptimizerConstructor',
    'LearningRateDecayOptimWrapperConstructor',
)
PLAIN = ('', 'DefaultOptimWrapperConstructor')
# Arguments of a constructor that ours has itself, chosen anew, or needs no more.
REPLACED_SETTINGS = (
    'decay_rate',
    'layer_decay_rate',
    'num_layers',
    'decay_type',
    'custom_keys',
    'bypass_duplicate',
)
GPUS_AND_IMAGES = re.compile(
    r'[_-](\d+)xb(\d+)(?=[_.-])'
)  # OpenMMLab's names: fcn_r50-d8_4xb2-40k_...
DEFAULT_BATCH_SIZE = 16
ON_ONE_GPU = ', train_dataloader.batch_size on one GPU'
MUCH = 2  # times the published rate


def adapt_optimizer(swap: Swap) -> None:
    """Replace SGD, see to the learning rates of the layers, and drop settings of the old parameters."""
    wrapper = swap.config.get('optim_wrapper')
    if not isinstance(wrapper, dict) or not isinstance(wrapper.get('optimizer'), dict):
        return
    name = type_name(wrapper['optimizer'])
    is_replaced = name in REPLACED and not swap.keep_optimizer
    if name in REPLACED and swap.keep_optimizer:
        swap.warn(f'{name} stays, as asked for; UniRepLKNet was trained with AdamW')
    if is_replaced:
        _replace_optimizer(swap, wrapper)
    elif name == 'AdamW' and swap.pretrained:
        _compare_rate(swap, wrapper['optimizer'].get('lr'))
    _drop_old_keys(swap, wrapper)
    _warn_about_slow_backbone(swap, wrapper)
    constructor = type_name(dict(type=wrapper.get('constructor')))
    was_layerwise = constructor in LAYERWISE
    decays = name not in REPLACED and _decays(wrapper['optimizer'])
    if swap.layer_decay or was_layerwise or is_replaced or (decays and constructor in PLAIN):
        _set_constructor(swap, wrapper, was_layerwise)
    elif decays and constructor != CONSTRUCTOR:
        swap.warn(
            f'{constructor} stays: see that it exempts the norms and layer scales of the backbone from weight'
            ' decay'
        )


def _decays(optimizer: dict) -> bool:
    """Whether it has a weight decay to exempt parameters from, and the rate that the constructor needs."""
    default = 0.01 if type_name(optimizer) == 'AdamW' else 0  # torch's
    return bool(optimizer.get('lr') and optimizer.get('weight_decay', default))


def _replace_optimizer(swap: Swap, wrapper: dict) -> None:
    old = wrapper['optimizer']
    batch_size, source = _batch_size(swap)
    rate, rule = learning_rate(swap.task, batch_size, swap.pretrained is not None)
    if source == ON_ONE_GPU:
        swap.warn(
            f"the config does not say how many GPUs it is for: AdamW's rate {rate:g} is for one, with the "
            f'{batch_size} images that train_dataloader states; on N GPUs take N times that rate'
        )
    new = dict(type='AdamW', lr=rate, betas=BETAS, weight_decay=WEIGHT_DECAY)
    wrapper['optimizer'] = type(wrapper)(new)
    swap.report(
        f'{PLACE}.optimizer',
        f'{type_name(old)} with lr {old.get("lr", "?")} -> AdamW with lr {rate:g}, weight decay '
        f'{WEIGHT_DECAY:g}',
        f'as in the paper: {rule}{source}; --keep-optimizer leaves it',
    )
    _scale_schedule(swap, rate / old['lr'] if old.get('lr') else None)


def _compare_rate(swap: Swap, rate: float | None) -> None:
    """Warn where a rate for training from scratch meets pretrained weights."""
    batch_size, source = _batch_size(swap)
    published, rule = learning_rate(swap.task, batch_size, is_pretrained=True)
    if rate and rate > MUCH * published:
        swap.warn(
            f'AdamW keeps its learning rate {rate:g}, {rate / published:.1f} times that of the published '
            f'fine-tuning ({rule}{source}); with pretrained weights a smaller one may do better.'
        )


def _batch_size(swap: Swap) -> tuple[int, str]:
    """The batch that the original's learning rate is for, over all GPUs, and where that is said."""
    named = GPUS_AND_IMAGES.search(swap.path.name if swap.path else '')
    if named:
        gpus, images = map(int, named.groups())
        # auto_scale_lr is often inherited from a schedule for another batch.
        if images == (swap.config.get('train_dataloader') or {}).get('batch_size'):
            return gpus * images, f', as {named[0].strip("_-")} in its name says'
    stated = (swap.config.get('auto_scale_lr') or {}).get('base_batch_size')
    if stated:
        return stated, ''
    images = (swap.config.get('train_dataloader') or {}).get('batch_size')
    if images:
        return images, ON_ONE_GPU
    return DEFAULT_BATCH_SIZE, ', which is assumed: the config states none'


def _scale_schedule(swap: Swap, ratio: float | None) -> None:
    """Scale the rates that the schedule states, warm up where nothing does, and name what else it changes."""
    schedulers = swap.config.get('param_scheduler')
    if schedulers is None:
        return
    several = isinstance(schedulers, list | tuple)
    parts = list(schedulers) if several else [schedulers]
    for scheduler in find_dicts(parts):
        if scheduler.get('param_name') == 'weight_decay':
            swap.warn(
                f'{type_name(scheduler)} goes on changing weight_decay, by numbers for the original optimizer'
            )
        if not type_name(scheduler).endswith('LR'):
            continue
        for key in ('eta_min', 'eta_max'):
            if scheduler.get(key) and ratio:
                value = float(f'{scheduler[key] * ratio:.4g}')
                why = 'a learning rate, in proportion to the new one'
                place = f'param_scheduler, {type_name(scheduler)}'
                swap.set(place, scheduler, key, value, why)
    if not any(_warms_up(part) for part in parts):
        warm_up = dict(
            type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=WARM_UP_ITERATIONS
        )
        swap.config['param_scheduler'] = [ConfigDict(warm_up), *parts]
        swap.report(
            'param_scheduler',
            f'a warm-up of {WARM_UP_ITERATIONS} iterations in front',
            'AdamW wants one, and the published recipes have it; the original has none',
        )


def _warms_up(scheduler: dict) -> bool:
    """Whether a schedule begins below the full rate, and comes to it."""
    name = type_name(scheduler)
    if scheduler.get('begin', 0) > 0:
        return False
    if name == 'LinearLR':
        return scheduler.get('start_factor', 1 / 3) < scheduler.get('end_factor', 1.0)
    if name == 'ConstantLR':  # the full rate comes at its end
        return 'end' in scheduler and scheduler.get('factor', 1 / 3) < 1
    return name == 'OneCycleLR' or 'Warmup' in name


def _drop_old_keys(swap: Swap, wrapper: dict) -> None:
    """Settings for parameters by name, where the name is one inside of the original backbone."""
    keys = (wrapper.get('paramwise_cfg') or {}).get('custom_keys')
    if not keys:
        return
    whole = keys.get('backbone', {}).get('lr_mult', 1)
    old = {key: keys[key] for key in _keys_of_the_old_backbone(swap, keys)}
    for key in old:
        del keys[key]
    if old:
        shown = ', '.join(list(old)[:2]) + (f' and {len(old) - 2} more' if len(old) > 2 else '')
        swap.report(
            f'{PLACE}.paramwise_cfg.custom_keys',
            f'{shown} dropped',
            f'they name parameters of {swap.old_type}',
        )
    scaled = [
        f'{key} (lr_mult={settings["lr_mult"]:g})'
        for key, settings in old.items()
        if settings.get('lr_mult', whole) != whole
    ]
    if scaled:
        verb = (
            'froze' if all(old[key].get('lr_mult') == 0 for key in old) else 'scaled the rates of'
        )
        swap.warn(
            f'custom_keys {verb} parts of {swap.old_type} that are gone: {", ".join(scaled)}. All of the new '
            f'backbone trains at {"one rate" if whole == 1 else f"{whole:g} times the rate"}; '
            'frozen_stages, or keys such as backbone.stages.3, treat its parts differently'
        )


def _warn_about_slow_backbone(swap: Swap, wrapper: dict) -> None:
    """A small rate of the whole backbone, as DETR's, is for pretrained weights."""
    keys = (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
    factor = keys.get('backbone', {}).get('lr_mult', 1)
    if factor < 1 and swap.pretrained is None:
        swap.warn(
            f'custom_keys keeps the backbone at {factor:g} times the learning rate, which is for pretrained '
            'weights: from random ones it hardly learns; give it --pretrained, or take lr_mult out'
        )


def _keys_of_the_old_backbone(swap: Swap, keys: Iterable[str]) -> list[str]:
    """Those that matched a parameter of the original backbone, as parts of its name, and match none now."""
    inside = [key for key in keys if key.startswith('backbone.')]
    others = [key for key in keys if key != 'backbone' and key not in inside]
    if not others:
        return inside
    before = _names_in_the_model(swap.old_backbone, swap.scope)
    matched = [key for key in others if _matches(key, before)]
    if matched:
        now = _names_in_the_model(swap.model['backbone'], swap.scope)
        matched = [key for key in matched if not _matches(key, now)]
    if matched:
        rest = parameter_names(swap.config)
        matched = [key for key in matched if not _matches(key, rest)]
    return [key for key in keys if key in inside or key in matched]


def _names_in_the_model(backbone: ConfigDict, scope: str) -> list[str]:
    return [f'backbone.{name}' for name in trained_parameters(backbone, scope)]


def _matches(key: str, names: Iterable[str]) -> bool:
    """Whether a key is a part of one of the names, as MMEngine's constructors look for it."""
    return any(key in f'.{name}' for name in names)


def _set_constructor(swap: Swap, wrapper: dict, was_layerwise: bool) -> None:
    """The suite's constructor, which never decays norms and biases, with the rate of the layers."""
    old: dict[str, Any] = dict(wrapper.get('paramwise_cfg') or {})
    rate, reason = _layer_rate(swap, was_layerwise)
    # 0 is what the constructor does by itself.
    kept = {key: old[key] for key in DECAY_MULTIPLIERS if old.get(key) and not was_layerwise}
    keys = _custom_keys(swap, old.get('custom_keys') or {}, rate)
    _report_lost_settings(swap, {key: old[key] for key in old if key not in kept})
    wrapper['constructor'] = CONSTRUCTOR
    new = dict(decay_rate=rate, **(dict(custom_keys=keys) if keys else {}), **kept)
    wrapper['paramwise_cfg'] = type(wrapper)(new)
    old_rate = old.get('decay_rate', old.get('layer_decay_rate')) if was_layerwise else None
    change = f'{old_rate:g} -> {rate:g}' if old_rate not in (None, rate) else f'{rate:g}'
    swap.report(f'{PLACE}.constructor', f'{CONSTRUCTOR}, decay_rate {change}', reason)


def _layer_rate(swap: Swap, was_layerwise: bool) -> tuple[float, str]:
    """The rate of layer-wise learning rates and its reason: 1 for random weights, unless asked for."""
    published = published_rates(swap.task, swap.arch)[0].decay_rate
    rate = published if swap.layer_decay is True else swap.layer_decay or 1.0
    if swap.layer_decay is None and was_layerwise and swap.pretrained:
        rate = published
    if rate != 1:
        if not swap.pretrained:
            swap.warn(
                f'decay_rate {rate:g}, as asked for, is for fine-tuning: the first layers of a backbone that '
                'starts from random weights hardly learn; give it --pretrained'
            )
        return rate, 'each layer of the backbone trains at a rate of its own'
    reason = 'norms and biases are not decayed, as in the paper; layers train at one rate'
    if swap.layer_decay is None and was_layerwise and published != 1:
        reason += (
            f', since their weights are random: with --pretrained, decay_rate is {published:g}'
        )
    return rate, reason


def _custom_keys(swap: Swap, old: dict, rate: float) -> dict[str, dict]:
    """The original's settings by name, without those for the backbone that the constructor replaces."""
    place = f'{PLACE}.paramwise_cfg.custom_keys'
    keys = {key: dict(settings) for key, settings in old.items()}
    if rate != 1 and 'backbone' in keys:
        why = 'the layers of the backbone have rates of their own'
        swap.report(place, f'backbone={keys.pop("backbone")} dropped', why)
    elif keys.get('backbone', {}).get('decay_mult') == 1:
        # A factor by name counts for norms as well, which the original exempted by their own names.
        del keys['backbone']['decay_mult']
        swap.report(
            f'{place}.backbone',
            'decay_mult=1 dropped',
            'it would decay the norms of the backbone as well',
        )
        if not keys['backbone']:
            del keys['backbone']
    return keys


def _report_lost_settings(swap: Swap, settings: dict[str, Any]) -> None:
    """Report the arguments of the original's constructor that say something and have no place in ours."""
    for key, value in settings.items():
        is_neutral = value == (0 if key in DECAY_MULTIPLIERS else 1)
        if key not in REPLACED_SETTINGS and not is_neutral:
            place, what = f'{PLACE}.paramwise_cfg', f'{key}={describe(value)} dropped'
            swap.report(
                place, what, f'{CONSTRUCTOR} does not have it, or it is for {swap.old_type}'
            )
