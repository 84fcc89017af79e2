"""What each command-line option of the tools does to a config."""

import argparse
import difflib
import inspect
import logging
import os
import tempfile
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner import Runner

from unireplknet_mm.configuration import type_name
from unireplknet_mm.errors import UserError
from unireplknet_mm.files import NO_SPACE, no_space_error
from unireplknet_mm.launch.mistakes import did_you_mean
from unireplknet_mm.launch.preflight import check_checkpoint
from unireplknet_mm.weights.reading import read_meta

# What a config may set, beside the arguments of MMEngine's Runner, without inheriting it.
FREE_KEYS = ('custom_imports', 'input_shape', 'runner_type', 'strategy')
AMP_WRAPPERS = ('AmpOptimWrapper', 'CpuAmpOptimWrapper')


def load_config(path: str | Path, options: dict | list[str] | None = None) -> Config:
    """Read a config file and override settings of it.

    Args:
        options: as a dict with dotted keys, or as `KEY=VALUE` strings from the command line.

    Raises:
        UserError: there is no such file, it is no config, an option is not of the form `KEY=VALUE`, or its
            key leads through something that is no dict.
    """
    path = Path(path)
    if not path.is_file():
        problem = 'is a folder' if path.is_dir() else 'does not exist'
        raise UserError(f'config {path} {problem}.{_suggest_configs(path)}')
    try:
        cfg = Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is a program of the user's, and so is what it raises
        reason = _reason(error)
        if isinstance(reason, UserError):  # such as a package that is missing, with the way out
            raise UserError(f'config {path} cannot be read: {reason}') from error
        if isinstance(reason, OSError) and reason.errno in NO_SPACE:  # MMEngine reads a copy of it
            raise no_space_error(reason, tempfile.gettempdir()) from error
        summary = str(reason).strip().partition('\n')[0]
        raise UserError(
            f'config {path} cannot be read: {type(reason).__name__}: {summary}'
        ) from error
    override(cfg, options)
    return cfg


def _reason(error: Exception) -> BaseException:
    """The error that led to this one, where a report of it says less."""
    reason = error.__cause__ or error
    # MMEngine's report of a module of `custom_imports` that raises an ImportError has no cause.
    if isinstance(reason, ImportError) and str(reason).startswith('Failed to import '):
        return reason.__context__ or reason
    return reason


def override(cfg: Config, options: dict | list[str] | None) -> None:
    """Set what `--cfg-options` asks for; arguments and errors as in `load_config`.

    A key that neither the config nor MMEngine's runner knows is set all the same, with a warning.
    """
    values = options if isinstance(options, dict) else _parse_options(options or [])
    known = {*cfg, *FREE_KEYS, *inspect.signature(Runner.__init__).parameters}
    for key in dict.fromkeys(key.partition('.')[0] for key in values):
        if key not in known:
            print_log(
                f'--cfg-options sets {key}, which the config does not have.{did_you_mean(key, known)}',
                logger='current',
                level=logging.WARNING,
            )
    try:
        cfg.merge_from_dict(values)
    except (KeyError, TypeError) as error:
        raise UserError(f'--cfg-options does not fit the config: {error}') from error


def _parse_options(options: list[str]) -> dict:
    for option in options:
        if '=' not in option:
            raise UserError(f'--cfg-options takes KEY=VALUE, not {option!r}')
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction, default={})
    try:
        values = parser.parse_args(['--cfg-options', *options]).cfg_options
    except AssertionError as error:  # how MMEngine says it
        raise UserError(f'--cfg-options cannot be read: {error}') from error
    for option in options:
        key, _, text = option.partition('=')
        if ' ' in text and not set(text) & set(',()[]'):
            values[key] = text  # a path with a blank, which DictAction would leave out
    return values


def _suggest_configs(path: Path) -> str:
    path = path.absolute()
    folder = next(parent for parent in (path, *path.parents) if parent.is_dir())
    if folder == Path.cwd() and (folder / 'configs').is_dir():
        folder = folder / 'configs'
    # Below any other folder may be the whole disk.
    files = folder.rglob('*.py') if 'configs' in folder.parts else folder.glob('*.py')
    candidates = [file for file in sorted(files) if '_base_' not in file.parts]
    stems = difflib.get_close_matches(path.stem, {file.stem for file in candidates}, n=3)
    close = [file for stem in stems for file in candidates if file.stem == stem]
    if close:
        return '\nDid you mean ' + ' or '.join(_short(file) for file in close[:3]) + '?'
    return f'\nTo see those that do: ls {_short(folder)}'


def _short(path: Path) -> str:
    """Relative to the working directory where that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


def set_work_dir(cfg: Config, work_dir: str | None, demo_data: bool = False) -> None:
    """`work_dir`, or the config's, or `work_dirs/NAME_OF_THE_CONFIG`.

    Demo runs have a folder of their own, so that no real training resumes from one.
    """
    if work_dir:
        cfg.work_dir = work_dir
    elif not cfg.get('work_dir'):
        stem = Path(cfg.filename).stem
        cfg.work_dir = os.path.join('work_dirs', f'{stem}_demo' if demo_data else stem)


def enable_amp(cfg: Config, dtype: str | None = None) -> None:
    """Train in mixed precision: float16 with a dynamic loss scale on GPU, bfloat16 on CPU.

    Args:
        dtype: 'float16' or 'bfloat16', which needs no loss scale; default: as above.

    Raises:
        UserError: the config has an optimizer wrapper of its own kind, or asks for float16 on CPU.
    """
    wrapper = cfg.optim_wrapper
    wrapper.setdefault('type', 'OptimWrapper')
    if type_name(wrapper) not in ('OptimWrapper', *AMP_WRAPPERS):
        raise UserError(
            f'--amp replaces an OptimWrapper, but the optim_wrapper of the config is {wrapper.type}.'
        )
    if get_device() == 'cpu':
        if dtype == 'float16':
            raise UserError('mixed precision on CPU is bfloat16; float16 needs a GPU.')
        wrapper.type = 'CpuAmpOptimWrapper'
        wrapper.pop('loss_scale', None)
        wrapper.pop('dtype', None)
        return
    wrapper.type = 'AmpOptimWrapper'
    if dtype is not None:
        wrapper.dtype = dtype
    wrapper.setdefault('loss_scale', 1.0 if wrapper.get('dtype') == 'bfloat16' else 'dynamic')


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the batch size over all processes.

    Raises:
        UserError: the config does not say for which batch size its learning rate is.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError(
            '--auto-scale-lr needs the batch size that the learning rate is for:\n'
            'auto_scale_lr = dict(base_batch_size=...) in the config.'
        )
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: str) -> None:
    """Resume from a checkpoint, or for 'auto' from the last one in the work dir, if there is one.

    Raises:
        UserError: the checkpoint does not exist.
    """
    if resume == 'auto':
        record = Path(cfg.work_dir) / 'last_checkpoint'
        if not record.is_file():
            print_log(
                f'No checkpoint to resume from in {cfg.work_dir}: training starts anew.',
                logger='current',
            )
            return
        resume = record.read_text(encoding='utf-8').strip()
        moved = record.with_name(os.path.basename(resume))
        if not os.path.exists(resume) and moved.exists():  # the work dir is no longer where it was
            resume = str(moved)
        if not os.path.exists(resume):
            raise UserError(
                f'checkpoint {resume}, which {record} names, does not exist.\n'
                'Name another one with --resume CHECKPOINT, or remove that record to start anew.'
            )
    check_checkpoint(resume)
    cfg.resume = True
    cfg.load_from = resume


def set_seed(cfg: Config, seed: int | None) -> None:
    """Seed as asked for; else a resumed run takes the one that it had, and another that of the config.

    The order of the data depends on it, so to go on as before, a run resumes with the same seed. A folder of
    shards, which FlexibleRunner writes, is not asked.
    """
    randomness = dict(cfg.get('randomness') or {})
    checkpoint = cfg.get('load_from') if cfg.get('resume') else None
    if seed is None and checkpoint and not os.path.isdir(checkpoint):
        seed = read_meta(checkpoint).get('seed')
        if seed is not None and randomness.get('seed') not in (None, seed):
            print_log(
                f'The seed is {seed}, as in the training to be resumed, not {randomness["seed"]} as in the '
                'config; --seed sets another.',
                logger='current',
            )
    if seed is None:
        seed = randomness.get('seed')
    cfg.randomness = {**randomness, 'seed': seed}
