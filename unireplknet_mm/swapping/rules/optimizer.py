"""The optimiser: AdamW in place of SGD, learning rates of the layers, settings for the original's parameters.

SGD with the rates of a ResNet trains a ConvNet with LayerNorm and layer scale badly or not at all; the paper
trains all tasks with AdamW. A config that has AdamW keeps it with its learning rate.
"""

import re
from typing import Any

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.swapping.recipes import (
    BETAS,
    WARM_UP_ITERATIONS,
    WEIGHT_DECAY,
    learning_rate,
    published_rates,
)
from unireplknet_mm.swapping.swap import Swap

REPLACED = ('SGD', 'RMSprop', 'LARS')
PLACE = 'optim_wrapper'
CONSTRUCTOR = 'LayerDecayOptimWrapperConstructor'
LAYERWISE = (  # constructors of the toolboxes that divide the original backbone into layers
    'LearningRateDecayOptimizerConstructor',
    'LayerDecayOptimizerConstructor',
    'LearningRateDecayOptimWrapperConstructor',
)
DECAY_MULTIPLIERS = ('norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult')
GPUS_AND_IMAGES = re.compile(
    r'[_-](\d+)xb(\d+)(?=[_.-])'
)  # OpenMMLab's names: fcn_r50-d8_4xb2-40k_...
DEFAULT_BATCH_SIZE = 16
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
    was_layerwise = type_name(dict(type=wrapper.get('constructor'))) in LAYERWISE
    if swap.layer_decay or was_layerwise or is_replaced:
        _set_layer_decay(swap, wrapper, was_layerwise)


def _replace_optimizer(swap: Swap, wrapper: dict) -> None:
    old = wrapper['optimizer']
    batch_size, source = _batch_size(swap)
    rate, rule = learning_rate(swap.task, batch_size, swap.pretrained is not None)
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
    named = GPUS_AND_IMAGES.search(swap.file_name)
    if named:
        gpus, images = map(int, named.groups())
        # auto_scale_lr is often inherited from a schedule for another batch.
        if images == (swap.config.get('train_dataloader') or {}).get('batch_size'):
            return gpus * images, f', as {named[0].strip("_-")} in its name says'
    stated = (swap.config.get('auto_scale_lr') or {}).get('base_batch_size')
    if stated:
        return stated, ''
    return DEFAULT_BATCH_SIZE, ', which is assumed: the config states none'


def _scale_schedule(swap: Swap, ratio: float | None) -> None:
    """Scale the rates that the schedule states, and warm up where nothing does."""
    schedulers = swap.config.get('param_scheduler')
    if schedulers is None:
        return
    several = isinstance(schedulers, list | tuple)
    parts = list(schedulers) if several else [schedulers]
    for scheduler in find_dicts(parts):
        if not type_name(scheduler).endswith('LR'):
            continue
        for key in ('eta_min', 'eta_max'):
            if scheduler.get(key) and ratio:
                value = float(f'{scheduler[key] * ratio:.4g}')
                why = 'a learning rate, in proportion to the new one'
                place = f'param_scheduler, {type_name(scheduler)}'
                swap.set(place, scheduler, key, value, why)
    if not any('Warmup' in type_name(part) or type_name(part) == 'LinearLR' for part in parts):
        warm_up = dict(
            type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=WARM_UP_ITERATIONS
        )
        swap.config['param_scheduler'] = [type(parts[0])(warm_up), *parts]
        swap.report(
            'param_scheduler',
            f'a warm-up of {WARM_UP_ITERATIONS} iterations in front',
            'AdamW wants one, and the published recipes have it; the original has none',
        )


def _drop_old_keys(swap: Swap, wrapper: dict) -> None:
    """Settings for parameters by name, where the name is one inside of the original backbone."""
    keys = (wrapper.get('paramwise_cfg') or {}).get('custom_keys')
    if not keys:
        return
    old = [key for key in keys if key.startswith('backbone.')]
    for key in old:
        del keys[key]
    if old:
        shown = ', '.join(old[:2]) + (f' and {len(old) - 2} more' if len(old) > 2 else '')
        swap.report(
            f'{PLACE}.paramwise_cfg.custom_keys',
            f'{shown} dropped',
            f'they name parameters of {swap.old_type}',
        )


def _set_layer_decay(swap: Swap, wrapper: dict, was_layerwise: bool) -> None:
    """The suite's constructor, which never decays norms and biases, with the rate of the layers."""
    if swap.layer_decay is True or (swap.layer_decay is None and was_layerwise):
        rate = published_rates(swap.task, swap.arch)[0].decay_rate
    else:
        rate = swap.layer_decay or 1.0
    old: dict[str, Any] = dict(wrapper.get('paramwise_cfg') or {})
    new: dict[str, Any] = dict(decay_rate=rate)
    keys = dict(old.get('custom_keys') or {})
    if rate != 1 and 'backbone' in keys:
        settings = keys.pop('backbone')
        swap.report(
            f'{PLACE}.paramwise_cfg.custom_keys',
            f'backbone={dict(settings)} dropped',
            'the layers of the backbone have rates of their own',
        )
    if keys:
        new['custom_keys'] = keys
    # 0 is what the constructor does by itself.
    new |= {key: old[key] for key in DECAY_MULTIPLIERS if old.get(key) and not was_layerwise}
    why = (
        'each layer of the backbone trains at a rate of its own'
        if rate != 1
        else 'norms and biases are not decayed, as in the paper; layers train at one rate'
    )
    wrapper['constructor'] = CONSTRUCTOR
    wrapper['paramwise_cfg'] = type(wrapper)(new)
    swap.report(f'{PLACE}.constructor', f'{CONSTRUCTOR}, decay_rate {rate:g}', why)
