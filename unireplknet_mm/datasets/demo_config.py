"""Run a config as written, but on a few generated images: what `--demo-data` does.

`use_demo_data` replaces where the data come from, and shortens the schedule. Pipelines,
samplers, model, losses, optimizer and evaluators stay those of the config, so that a run goes
through all of it. The scores mean nothing.
"""

import logging
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from unireplknet_mm.configuration import (
    drop_pretrained,
    find_dicts,
    innermost_datasets,
    type_name,
)
from unireplknet_mm.datasets.demo import make_demo_data
from unireplknet_mm.datasets.layouts import LAYOUTS, Layout, layout_of
from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.weights.published import local_path

SPLIT_OF_LOADER = {'train_dataloader': 'train', 'val_dataloader': 'val', 'test_dataloader': 'val'}


def _find_datasets(cfg: Config) -> list[dict]:
    return [
        dataset
        for key in SPLIT_OF_LOADER
        if cfg.get(key)
        for dataset in innermost_datasets(cfg[key]['dataset'])
    ]


def _find_layout(datasets: list[dict]) -> Layout:
    if not datasets:
        raise ArgumentError(
            'the config has no data loader, so there is nothing to swap for demo data'
        )
    layouts = {type_name(dataset): layout_of(type_name(dataset)) for dataset in datasets}
    unknown = sorted(name for name, layout in layouts.items() if layout is None)
    if unknown:
        known = [name for layout in LAYOUTS.values() for name in layout.dataset_types]
        raise ArgumentError(
            f'there is no demo data for the dataset type {", ".join(unknown)}; '
            f'supported are {", ".join(known)}'
        )
    if len(set(layouts.values())) > 1:
        raise ArgumentError(f'the config mixes the dataset types {", ".join(sorted(layouts))}')
    return layouts.popitem()[1]


def _folder_name(layout: Layout, parameters: dict, train_images: int, val_images: int) -> str:
    """Of the layout, what differs from its defaults, and the counts: one for each data set."""
    own = [
        _in_a_name(value) + name.removeprefix('num_')
        for name, value in parameters.items()
        if value != layout.defaults[name]
    ]
    return '-'.join([layout.name, *own, f'{train_images}train', f'{val_images}val'])


def _in_a_name(value: Any) -> str:
    if isinstance(value, list | tuple):
        return 'x'.join(map(str, value))
    return '' if value is True else str(value)


def _shrink_dataloader(dataloader: dict, batch_size: int, images: int) -> None:
    dataloader['batch_size'] = min(dataloader.get('batch_size', 1), batch_size)
    dataloader['num_workers'] = min(dataloader.get('num_workers', 0), images)


def _shorten_schedule(cfg: Config, max_iters: int) -> str:
    """One epoch, or `max_iters` iterations, with an evaluation and a checkpoint at the end.

    Returns the new length in words.
    """
    train_cfg = cfg.get('train_cfg')
    if not train_cfg:
        return 'nothing'
    unit = 'max_epochs' if 'max_epochs' in train_cfg else 'max_iters'
    # MMEngine ends a scheduler that states no end with the training; shortened, that may be before
    # the scheduler begins.
    for scheduler in find_dicts(cfg.get('param_scheduler')):
        begin = scheduler.get('begin', 0)
        end = train_cfg.get('max_epochs' if scheduler.get('by_epoch', True) else 'max_iters')
        if 'type' in scheduler and 'end' not in scheduler and (end or begin):
            scheduler['end'] = max(end or 0, begin + 1)
    length = 1 if unit == 'max_epochs' else max_iters
    train_cfg[unit] = length
    train_cfg['val_interval'] = length
    train_cfg.pop('val_begin', None)
    train_cfg.pop('dynamic_intervals', None)
    hooks = cfg.get('default_hooks') or {}
    if hooks.get('logger'):
        hooks['logger']['interval'] = 1
    if hooks.get('checkpoint'):
        checkpoint = hooks['checkpoint']
        checkpoint['interval'] = 1 if checkpoint.get('by_epoch', True) else length
        checkpoint.pop('save_begin', None)
    return '1 epoch' if unit == 'max_epochs' else f'{max_iters} iterations'


def _drop_missing_weights(cfg: Config) -> list[str]:
    """Remove the pretrained weights that are no file on this machine; return their names.

    A checkpoint to resume from stays, wherever it is: it was asked for.
    """

    def is_no_file(path: str) -> bool:
        return not local_path(path).is_file()

    dropped = drop_pretrained(cfg.get('model'), is_no_file)
    if cfg.get('load_from') and not cfg.get('resume') and is_no_file(cfg.load_from):
        dropped.append(cfg.load_from)
        cfg.load_from = None
    return dropped


def use_demo_data(
    cfg: Config,
    root: str | os.PathLike = 'data/demo',
    train_images: int | None = None,
    val_images: int | None = None,
    max_iters: int = 2,
) -> Config:
    """Let a config run on generated images in its layout, for about `max_iters` iterations.

    The data are written once, to a folder of `root` named after the layout and the counts.

    - Data sets and evaluators: what the layout says (`Layout.dataset_settings`, `point_config`): folders,
      annotations, where needed class names, so that heads keep their number of classes. Wrappers stay;
      repetitions are left out. The test data are the validation images.
    - Data loaders: batch size and workers are at most as many as there are images; a training by
      epochs takes `max_iters` batches an epoch where its batch size as written allows it.
    - Schedule: one epoch or `max_iters` iterations, then an evaluation and a checkpoint.
      Learning-rate schedules stay as written, so such a run sees only their beginning.
    - Pretrained weights (`init_cfg`, `load_from`) that are not on disk are dropped, those to download
      included. The checkpoint of a resumed training (`resume`) is left alone.

    Args:
        cfg: a config with data sets of one layout (`layouts/`); changed in place.
        root: folder of all demo data.
        train_images, val_images: how many samples. Default: 4 and 2, or what the layout says
            (`Layout.run_samples`).

    Returns:
        The same `cfg`.

    Raises:
        ArgumentError: there is no layout for a dataset type, a head has too few classes for the
            demo data, or counts are below 1.
        FileError: `root` cannot be written.
        MissingPackageError: scikit-learn or scikit-image is not installed.
    """
    if max_iters < 1:
        raise ArgumentError(f'max_iters must be at least 1, not {max_iters}')
    datasets = _find_datasets(cfg)
    layout = _find_layout(datasets)
    train_images = layout.run_samples[0] if train_images is None else train_images
    val_images = layout.run_samples[1] if val_images is None else val_images
    parameters = layout.parameters_for(cfg.get('model'), datasets)
    folder = _folder_name(layout, parameters, train_images, val_images)
    out = make_demo_data(layout.name, Path(root) / folder, train_images, val_images, **parameters)
    replaced = {
        f'{type_name(dataset)} {dataset.get("data_root") or ""}'.strip() for dataset in datasets
    }
    for key, split in SPLIT_OF_LOADER.items():
        if not cfg.get(key):
            continue
        dataloader = cfg[key]
        for dataset in innermost_datasets(dataloader['dataset']):
            settings = layout.dataset_settings(split, parameters)
            for name, value in dict(data_root=f'{out}/', **settings).items():
                dataset[name] = value  # where update() would merge dicts
        for config in find_dicts(dataloader['dataset']):
            if 'times' in config and 'dataset' in config:
                config['times'] = 1
        if split == 'val':
            _shrink_dataloader(dataloader, val_images, val_images)
        elif 'max_epochs' in (cfg.get('train_cfg') or {}):
            _shrink_dataloader(dataloader, max(1, train_images // max_iters), train_images)
        else:
            _shrink_dataloader(dataloader, train_images, train_images)
    remarks = layout.point_config(cfg, out)
    if cfg.get('data_root'):
        cfg.data_root = f'{out}/'
    length = _shorten_schedule(cfg, max_iters)
    dropped = _drop_missing_weights(cfg)
    summary = (
        f'{train_images} training and {val_images} validation {layout.samples} in {out} replace '
        f'{" and ".join(sorted(replaced))}; training is cut to {length}.'
    )
    print_log(' '.join(['Demo data:', summary, *remarks]), logger='current')
    if dropped:
        print_log(
            'Demo data: pretrained weights that are not on disk are left out, the model starts '
            f'from random weights: {", ".join(dropped)}',
            logger='current',
            level=logging.WARNING,
        )
    return cfg
