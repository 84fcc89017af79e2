"""What `--demo-data` does: the swap before a run, and what there is to say after a training."""

import logging
import math
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log
from mmengine.runner import Runner

from unireplknet_mm.configuration import innermost_datasets, type_name
from unireplknet_mm.datasets import use_demo_data as swap_data
from unireplknet_mm.datasets.layouts import layout_of
from unireplknet_mm.errors import UserError
from unireplknet_mm.launch.arguments import override
from unireplknet_mm.launch.preflight import check_data, where_to_get_data
from unireplknet_mm.weights.reading import read_meta

# Numbers of a sample; an image of 512×512 has fewer, a clip of 16 frames of 224×224 more.
LARGE_INPUT = 1e6
WITHOUT_DEMO_DATA = 'run the same command without --demo-data.'


def use_demo_data(cfg: Config, options: dict | list[str] | None = None) -> str:
    """Swap the data for generated ones; the first process writes them, the others wait.

    Args:
        options: `--cfg-options`, which have the last word: they may ask for a longer schedule.

    Returns:
        What to do next, for a run on the data that the config was written for.
    """
    next_step = _describe_real_run(cfg)
    if get_rank() == 0:
        _warn_of_long_run(cfg)
        swap_data(cfg)
    barrier()
    if get_rank() != 0:
        swap_data(cfg)
    override(cfg, options)
    return next_step


def _warn_of_long_run(cfg: Config) -> None:
    """Say it before the first iteration, after which a user may have waited for minutes."""
    size = cfg.get('input_shape') or ()
    if get_device() != 'cpu' or math.prod(size) < LARGE_INPUT:
        return
    datasets = innermost_datasets((cfg.get('train_dataloader') or {}).get('dataset') or {})
    layouts = (layout_of(type_name(dataset)) for dataset in datasets)
    for small_config in {
        layout.small_config for layout in layouts if layout and layout.small_config
    }:
        print_log(
            f'Demo data: with {" × ".join(map(str, size))} numbers a sample, an iteration of this config '
            f'takes minutes on a CPU. {small_config} shows the same in seconds.',
            logger='current',
            level=logging.WARNING,
        )


def _describe_real_run(cfg: Config) -> str:
    try:
        check_data(cfg, 'train', 'val')
    except UserError:
        loader = next(key for key in ('train_dataloader', 'val_dataloader') if cfg.get(key))
        dataset = next(innermost_datasets(cfg[loader]['dataset']))
        lines = [*where_to_get_data(dataset, loader), f'Then {WITHOUT_DEMO_DATA}']
    else:
        lines = [f'The data that the config asks for are there: {WITHOUT_DEMO_DATA}']
    return '\n'.join([*lines, 'For data of your own, see docs/custom_data.md.'])


def resumed_iteration(cfg: Config) -> int:
    """The iterations that a training has behind it: those of the checkpoint that it resumes from, else 0."""
    checkpoint = cfg.get('load_from') if cfg.get('resume') else None
    if not checkpoint or os.path.isdir(checkpoint):
        return 0
    return read_meta(checkpoint).get('iter', 0)


def report_demo_run(runner: Runner, next_step: str, first_iteration: int = 0) -> None:
    """Close the log of a training on demo data: what was shown, where the output is, what comes next.

    Args:
        next_step: what `use_demo_data` returned.
        first_iteration: where a resumed training went on, of `resumed_iteration`.
    """
    iterations = runner.iter - first_iteration
    if iterations <= 0:
        runner.logger.info(
            'The demo run had been finished before: nothing was left to train, and nothing was shown.\n'
            'Without --resume it starts anew.'
        )
        return
    shown = ['reading and augmenting data', f'{iterations} training iterations']
    files = [f'log: {os.path.basename(runner.log_dir)}/']
    record = Path(runner.work_dir) / 'last_checkpoint'
    if record.is_file():
        shown.append('a checkpoint')
        files.append(f'checkpoint: {os.path.basename(record.read_text(encoding="utf-8"))}')
    remarks = f'The model has seen {len(runner.train_dataloader.dataset)} generated samples only'
    if runner.val_loop is not None:
        shown.append('an evaluation')
        remarks += ': the scores say nothing about it.'
        if not _has_scores(runner):
            remarks += ' There was nothing to score yet, which is no error here.'
    else:
        remarks += '.'
    runner.logger.info(
        'The demo run is finished.\n'
        f'Shown: {os.path.basename(runner.cfg.filename)} works on this machine: {", ".join(shown)}.\n'
        f'{remarks}\n'
        f'Output: {runner.work_dir} ({", ".join(files)})\n'
        f'Next: {next_step}'
    )


def _has_scores(runner: Runner) -> bool:
    """Whether an evaluation gave any; mmdet gives none where nothing was detected."""
    times = ('val/time', 'val/data_time')
    scalars = runner.message_hub.log_scalars
    return any(name.startswith('val/') and name not in times for name in scalars)
