"""Run a config as written, but on a few generated images: what ``--demo-data`` does.

:func:`use_demo_data` replaces where the data come from, and shortens the schedule. Pipelines,
samplers, model, losses, optimizer and evaluators stay those of the config, so that a run goes
through all of it. The scores mean nothing.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from unireplknet_mm.configuration import drop_pretrained, find_dicts, type_name
from unireplknet_mm.datasets.demo import ADE20K_BACKGROUND, coco_class_names, make_demo_data

LAYOUT_OF_DATASET = {'CocoDataset': 'coco', 'ADE20KDataset': 'ade20k', 'ImageNet': 'imagenet'}
DATALOADERS = {'train_dataloader': 'train', 'val_dataloader': 'val', 'test_dataloader': 'val'}
EVALUATORS = ('val_evaluator', 'test_evaluator')


def _innermost_datasets(dataset: dict) -> Iterator[dict]:
    """The data sets inside wrappers such as RepeatDataset and ConcatDataset."""
    if 'datasets' in dataset:
        for inner in dataset['datasets']:
            yield from _innermost_datasets(inner)
    elif isinstance(dataset.get('dataset'), dict):
        yield from _innermost_datasets(dataset['dataset'])
    else:
        yield dataset


def _find_layout(cfg: Config) -> str:
    names = {
        type_name(dataset)
        for key in DATALOADERS
        if cfg.get(key)
        for dataset in _innermost_datasets(cfg[key]['dataset'])
    }
    if not names:
        raise ValueError('the config has no data loader, so there is nothing to swap for demo data')
    unknown = sorted(names - LAYOUT_OF_DATASET.keys())
    if unknown:
        raise ValueError(
            f'there is no demo data for the dataset type {", ".join(unknown)}; '
            f'supported are {", ".join(LAYOUT_OF_DATASET)}'
        )
    layouts = {LAYOUT_OF_DATASET[name] for name in names}
    if len(layouts) > 1:
        raise ValueError(f'the config mixes the dataset types {", ".join(sorted(names))}')
    return layouts.pop()


def _find_num_classes(cfg: Config, layout: str) -> int:
    """The ``num_classes`` of the demo data that suits the config's heads, or else its data sets."""
    heads = [
        value
        for config in find_dicts(cfg.get('model'))
        for key, value in config.items()
        # An RPN head knows only objects; its num_classes, where written, is 1.
        if key.endswith('head') and key != 'rpn_head'
    ]
    counts = {
        config['num_classes']
        for config in find_dicts(heads)
        if isinstance(config.get('num_classes'), int)
    }
    if layout == 'coco':
        classes = [
            len(dataset['metainfo']['classes'])
            for key in DATALOADERS
            if cfg.get(key)
            for dataset in _innermost_datasets(cfg[key]['dataset'])
            if (dataset.get('metainfo') or {}).get('classes')
        ]
        return max(counts or classes or [80])
    if layout == 'ade20k' and min(counts, default=150) < ADE20K_BACKGROUND:
        raise ValueError(
            f'the ADE20K demo data has {ADE20K_BACKGROUND} classes (ten digits and the '
            f'background), but a head of the config has only {min(counts)}'
        )
    return min(counts | {10})


def _swap_dataset(dataset: dict, layout: str, split: str, root: Path, num_classes: int) -> None:
    dataset['data_root'] = f'{root}/'
    if layout == 'coco':
        dataset['ann_file'] = f'annotations/instances_{split}2017.json'
        dataset['data_prefix'] = dict(img=f'{split}2017/')
        dataset['metainfo'] = dict(classes=coco_class_names(num_classes))
    elif layout == 'ade20k':
        folder = dict(train='training', val='validation')[split]
        dataset['ann_file'] = ''
        dataset['data_prefix'] = dict(
            img_path=f'images/{folder}', seg_map_path=f'annotations/{folder}'
        )
    else:
        dataset.pop('split', None)
        dataset['ann_file'] = f'meta/{split}.txt'
        dataset['data_prefix'] = split


def _shrink_dataloader(dataloader: dict, batch_size: int, images: int) -> None:
    dataloader['batch_size'] = min(dataloader.get('batch_size', 1), batch_size)
    dataloader['num_workers'] = min(dataloader.get('num_workers', 0), images)


def _shorten_schedule(cfg: Config, max_iters: int) -> str:
    """One epoch, or ``max_iters`` iterations, with an evaluation and a checkpoint at the end.

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
            scheduler['end'] = end or begin + 1
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
    """Remove the pretrained weights that are no file on this machine; return their names."""

    def is_no_file(path: str) -> bool:
        return not os.path.isfile(path)

    dropped = drop_pretrained(cfg.get('model'), is_no_file)
    if cfg.get('load_from') and is_no_file(cfg.load_from):
        dropped.append(cfg.load_from)
        cfg.load_from = None
    return dropped


def use_demo_data(
    cfg: Config,
    root: str | os.PathLike = 'data/demo',
    train_images: int = 4,
    val_images: int = 2,
    max_iters: int = 2,
) -> Config:
    """Let a config run on generated images in its layout, for about ``max_iters`` iterations.

    The data are written once, to a folder of ``root`` named after the layout and the counts.

    - Data sets: ``data_root``, ``ann_file`` and ``data_prefix``; for COCO also the class names, so
      that heads keep their number of classes. Wrappers stay; repetitions are left out. The test
      data are the validation images.
    - Evaluators: ``ann_file``.
    - Data loaders: batch size and workers are at most as many as there are images; a training by
      epochs takes ``max_iters`` batches an epoch where its batch size as written allows it.
    - Schedule: one epoch or ``max_iters`` iterations, then an evaluation and a checkpoint.
      Learning-rate schedules stay as written, so such a run sees only their beginning.
    - Pretrained weights (``init_cfg``, ``load_from``) that are not on disk are dropped.

    Args:
        cfg: A config with ``CocoDataset``, ``ADE20KDataset`` or ``ImageNet`` data sets; changed in
            place.

    Returns:
        The same ``cfg``.

    Raises:
        ValueError: another dataset type, too few classes for the ADE20K layout, or counts below 1.
        OSError: ``root`` cannot be written.
        ImportError: scikit-learn or scikit-image is not installed.
    """
    if max_iters < 1:
        raise ValueError(f'max_iters must be at least 1, not {max_iters}')
    layout = _find_layout(cfg)
    num_classes = _find_num_classes(cfg, layout)
    classes = '' if num_classes == 10 else f'-{num_classes}classes'
    out = make_demo_data(
        layout,
        Path(root) / f'{layout}{classes}-{train_images}train-{val_images}val',
        train_images,
        val_images,
        num_classes=num_classes,
    )
    replaced = set()
    for key, split in DATALOADERS.items():
        if not cfg.get(key):
            continue
        dataloader = cfg[key]
        for dataset in _innermost_datasets(dataloader['dataset']):
            replaced.add(f'{type_name(dataset)} {dataset.get("data_root") or ""}'.strip())
            _swap_dataset(dataset, layout, split, out, num_classes)
        for config in find_dicts(dataloader['dataset']):
            if 'times' in config and 'dataset' in config:
                config['times'] = 1
        if split == 'val':
            _shrink_dataloader(dataloader, val_images, val_images)
        elif 'max_epochs' in (cfg.get('train_cfg') or {}):
            _shrink_dataloader(dataloader, max(1, train_images // max_iters), train_images)
        else:
            _shrink_dataloader(dataloader, train_images, train_images)
    for key in EVALUATORS:
        for evaluator in find_dicts(cfg.get(key)):
            if 'ann_file' in evaluator:
                evaluator['ann_file'] = str(out / 'annotations' / 'instances_val2017.json')
    if cfg.get('data_root'):
        cfg.data_root = f'{out}/'
    length = _shorten_schedule(cfg, max_iters)
    dropped = _drop_missing_weights(cfg)
    print_log(
        f'Demo data: {train_images} training and {val_images} validation images in {out} replace '
        f'{" and ".join(sorted(replaced))}; training is cut to {length}.',
        logger='current',
    )
    if dropped:
        print_log(
            'Demo data: pretrained weights that are not on disk are left out, the model starts '
            f'from random weights: {", ".join(dropped)}',
            logger='current',
            level=logging.WARNING,
        )
    return cfg
