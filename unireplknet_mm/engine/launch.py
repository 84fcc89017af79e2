"""What `tools/train.py` and `tools/test.py` share: from a config file to a runner, with clear errors.

The tools call these functions in order. Each changes the config in place, and raises `UserError`
before anything is built when a path, a device or a setting cannot work.
"""

import argparse
import difflib
import functools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.dist import barrier, get_rank, init_dist
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import CheckpointLoader, Runner
from torch import distributed

from unireplknet_mm import checkpoint as checkpoints
from unireplknet_mm.config import find_dicts
from unireplknet_mm.datasets.demo_config import use_demo_data as _use_demo_data

SYNC_NORMS = ('SyncBN', 'MMSyncBN')
AMP_WRAPPERS = ('AmpOptimWrapper', 'CpuAmpOptimWrapper')
# How long a process waits for the first one of its machine to report an error that both met.
SECONDS_FOR_FIRST_RANK = 20

# Data set type -> name, where it is from, what its folder contains.
DATA_SETS = {
    'CocoDataset': (
        'COCO 2017',
        'https://cocodataset.org/#download',
        '{root}/annotations/instances_{{train,val}}2017.json and {root}/{{train,val}}2017/*.jpg',
    ),
    'ADE20KDataset': (
        'ADE20K',
        'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
        '{root}/{{images,annotations}}/{{training,validation}}/',
    ),
    'ImageNet': (
        'ImageNet-1K',
        'https://image-net.org/download.php',
        '{root}/{{train,val}}/CLASS/*.JPEG and {root}/meta/{{train,val}}.txt',
    ),
}


class UserError(Exception):
    """What only the user can mend. The message, one to four lines, is all they need to do so."""


def exit_on_user_error(function: Callable) -> Callable:
    """Run a tool: an error of the user's ends it with status 1 and its message, without a traceback.

    That is a `UserError`, and whatever a `raise` in the package gave, such as the `ValueError` for
    an unknown arch. In a distributed run the first process of each machine prints it.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            if not _is_of_the_user(error):
                raise
            if os.environ.get('LOCAL_RANK', '0') != '0':
                time.sleep(SECONDS_FOR_FIRST_RANK)  # the launcher ends this process meanwhile
            print(f'error: {error}', file=sys.stderr, flush=True)  # noqa: T201
            sys.exit(1)
        if distributed.is_initialized():
            distributed.destroy_process_group()
        return result

    return run


def _is_of_the_user(error: Exception) -> bool:
    if isinstance(error, UserError):
        return True
    origin = traceback.extract_tb(error.__traceback__)[-1]
    package = Path(__file__).parents[1]
    return Path(origin.filename).is_relative_to(package) and (origin.line or '').startswith('raise')


def load_config(path: str | Path, options: dict | list[str] | None = None) -> Config:
    """Read a config file and override settings of it.

    Args:
        options: as a dict with dotted keys, or as `KEY=VALUE` strings from the command line.

    Raises:
        UserError: there is no such file, an option is not of the form `KEY=VALUE`, or its key leads
            through something that is no dict.
    """
    path = Path(path)
    if not path.is_file():
        problem = 'is a folder' if path.is_dir() else 'does not exist'
        raise UserError(f'config {path} {problem}.{_suggest_configs(path)}')
    cfg = Config.fromfile(path)
    override(cfg, options)
    return cfg


def override(cfg: Config, options: dict | list[str] | None) -> None:
    """Set what `--cfg-options` asks for; arguments and errors as in `load_config`."""
    values = options if isinstance(options, dict) else _parse_options(options or [])
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
    values = parser.parse_args(['--cfg-options', *options]).cfg_options
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


def create_work_dir(cfg: Config) -> None:
    """Create the work dir and try to write there, before the time for building a model is spent.

    Raises:
        UserError: it cannot be created or written.
    """
    create_folder(cfg.work_dir, '--work-dir')


def create_folder(folder: str | Path, option: str) -> None:
    """Create a folder and try to write there; `option` is what the user names it with.

    Raises:
        UserError: it cannot be created or written.
    """
    folder = Path(folder).absolute()
    probe = folder / f'.writable.{os.getpid()}'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f'cannot write to {folder}: {error.strerror}.\nChoose another one with {option}.'
        ) from error


def prepare_device(cfg: Config, launcher: str, device: str) -> None:
    """Choose CPU or GPU, start the processes' communication, and fit the config to both.

    Where there is no GPU, the processes talk through gloo, and mixed precision is bfloat16. Without
    a GPU, or with one process, SyncBN becomes BN, whose parameters have the same names.

    Args:
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        device: 'auto', 'cpu' or 'cuda'. For 'cpu' the caller has hidden the GPUs before it imported
            torch (`CUDA_VISIBLE_DEVICES=`).

    Raises:
        UserError: no GPU where one is asked for, more processes than GPUs, no launcher at work.
    """
    cfg.launcher = launcher
    _check_device(launcher, device)
    on_cpu = get_device() == 'cpu'
    if on_cpu:
        _use_cpu(cfg)
    if launcher != 'none' and not distributed.is_initialized():
        if on_cpu:
            # MMEngine's init_dist selects a GPU, also where there is none.
            distributed.init_process_group(cfg.env_cfg.dist_cfg.backend)
        elif cfg.get('runner_type', 'Runner') == 'Runner':
            init_dist(launcher, **(cfg.get('env_cfg') or {}).get('dist_cfg', {}))
    if on_cpu or launcher == 'none':
        _replace_sync_norms(cfg, 'no GPU' if on_cpu else 'one process')


def _check_device(launcher: str, device: str) -> None:
    gpus = torch.cuda.device_count()
    if device == 'cuda' and not gpus:
        reason = f'torch {torch.__version__} sees none'
        if torch.version.cuda is None:
            reason = f'torch {torch.__version__} is built without CUDA'
        raise UserError(f'--device cuda asks for a GPU, but {reason}.\nRun with --device cpu.')
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch expects to be started by torchrun.\n'
            'Use tools/dist_train.sh CONFIG GPUS or tools/dist_test.sh CONFIG CHECKPOINT GPUS.'
        )
    if launcher != 'pytorch' and get_device() == 'cpu':
        raise UserError(
            f'--launcher {launcher} needs GPUs, and there is none. On CPU, several processes are\n'
            'started with tools/dist_train.sh CONFIG PROCESSES.'
        )
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    if gpus and processes > gpus:
        raise UserError(
            f'{processes} processes were started on a machine with {gpus} GPU(s).\n'
            f'Start at most {gpus}, or add --device cpu.'
        )


def _use_cpu(cfg: Config) -> None:
    cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', {})
    cfg.env_cfg.dist_cfg = dict(backend='gloo')
    if cfg.launcher != 'none':
        wrapper = cfg.get('model_wrapper_cfg') or dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        cfg.model_wrapper_cfg = {**wrapper, 'device_ids': None}
    if (cfg.get('optim_wrapper') or {}).get('type') == 'AmpOptimWrapper':
        enable_amp(cfg)


def _replace_sync_norms(cfg: Config, reason: str) -> None:
    norms = [config for config in find_dicts(cfg.get('model')) if config.get('type') in SYNC_NORMS]
    for norm in norms:
        norm['type'] = 'BN'
    cfg.pop('sync_bn', None)
    if norms:
        print_log(f'SyncBN is replaced by BN: {reason}.', logger='current')


def use_demo_data(cfg: Config, options: dict | list[str] | None = None) -> None:
    """Swap the data for generated ones; the first process writes them, the others wait.

    Args:
        options: `--cfg-options`, which have the last word: they may ask for a longer schedule.
    """
    if get_rank() == 0:
        _use_demo_data(cfg)
    barrier()
    if get_rank() != 0:
        _use_demo_data(cfg)
    override(cfg, options)


def check_data(cfg: Config, *splits: str) -> None:
    """See that what the data loaders and evaluators of these splits read is there.

    Folders with a storage backend, and annotations given as something else than a path, are left
    to the data set.

    Raises:
        UserError: a path does not exist.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader') or {}
        for dataset in find_dicts(loader.get('dataset')):
            for path in _paths_of_data(dataset):
                if not os.path.exists(path):
                    raise UserError(_missing_data(path, dataset, f'{split}_dataloader'))
        for evaluator in find_dicts(cfg.get(f'{split}_evaluator')):
            path = evaluator.get('ann_file')
            if isinstance(path, str) and '://' not in path and not os.path.exists(path):
                raise UserError(
                    f'{os.path.abspath(path)}, the ann_file of {split}_evaluator, does not exist.'
                )


def _paths_of_data(dataset: dict) -> Iterator[str]:
    if 'type' not in dataset or dataset.get('backend_args') or dataset.get('file_client_args'):
        return
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or ''
    if not prefix and dataset.get('split') in ('train', 'val', 'test'):
        prefix = dataset['split']
    parts = [root, dataset.get('ann_file')]
    parts += [*prefix.values()] if isinstance(prefix, dict) else [prefix]
    for part in parts:
        if part and isinstance(part, str):
            path = os.path.join(root, os.path.expanduser(part)) if part != root else root
            if '://' not in path:
                yield path


def _missing_data(path: str, dataset: dict, loader: str) -> str:
    lines = [f'{os.path.abspath(path)}, which {loader} reads, does not exist.']
    kind = str(getattr(dataset['type'], '__name__', dataset['type'])).split('.')[-1]
    root = (dataset.get('data_root') or '.').rstrip('/')
    if kind in DATA_SETS:
        name, source, layout = DATA_SETS[kind]
        lines += [
            f'{name} is at {source}; expected are {layout.format(root=root)}',
            f'A copy elsewhere can be linked: ln -s /path/to/it {root}',
            'To run this config on generated data instead, add --demo-data.',
        ]
    else:
        lines.append(f'Set data_root, ann_file and data_prefix of {loader}.dataset in the config.')
    return '\n'.join(lines)


def check_pretrained(cfg: Config) -> None:
    """See that the local files with weights to start from are there.

    A resumed training has its weights from the checkpoint: what is missing is left out.

    Raises:
        UserError: a file does not exist.
    """
    if not cfg.get('resume') and cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
    for config in find_dicts(cfg.get('model')):
        inits = config.get('init_cfg') or []
        inits = [inits] if isinstance(inits, dict) else inits
        missing = [init for init in inits if _is_missing(init)]
        if not missing:
            continue
        if not cfg.get('resume'):
            path = missing[0]['checkpoint']
            raise UserError(
                f'the weights to start from, {os.path.abspath(path)}, do not exist.'
                f'{checkpoints.where_to_get(path)}'
            )
        config['init_cfg'] = [init for init in inits if init not in missing] or None


def _is_missing(init: dict) -> bool:
    path = init.get('checkpoint')
    return isinstance(path, str) and '://' not in path and not os.path.isfile(path)


def check_checkpoint(path: str) -> None:
    """See that a checkpoint that is asked for is there.

    Raises:
        UserError: the file does not exist.
    """
    if '://' not in path and not os.path.exists(path):
        raise UserError(
            f'checkpoint {os.path.abspath(path)} does not exist.{checkpoints.where_to_get(path)}'
        )


def enable_amp(cfg: Config, dtype: str | None = None) -> None:
    """Train in mixed precision: float16 with a dynamic loss scale on GPU, bfloat16 on CPU.

    Args:
        dtype: 'float16' or 'bfloat16', which needs no loss scale; default: as above.

    Raises:
        UserError: the config has an optimizer wrapper of its own kind, or asks for float16 on CPU.
    """
    wrapper = cfg.optim_wrapper
    if wrapper.setdefault('type', 'OptimWrapper') not in ('OptimWrapper', *AMP_WRAPPERS):
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
    check_checkpoint(resume)
    cfg.resume = True
    cfg.load_from = resume


def set_seed(cfg: Config, seed: int | None) -> None:
    """Seed as asked for; without a seed, a resumed run takes the one that it had.

    The order of the data depends on it, so to go on as before, a run resumes with the same seed.
    """
    randomness = dict(cfg.get('randomness') or {})
    if seed is None:
        seed = randomness.get('seed')
    if seed is None and cfg.get('resume'):
        seed = checkpoints.load_checkpoint_file(cfg.load_from).get('meta', {}).get('seed')
    cfg.randomness = {**randomness, 'seed': seed}


def make_resumable(cfg: Config) -> None:
    """Let random numbers depend on the position in the training only (`engine/randomness.py`)."""
    loader = cfg.train_dataloader
    if loader.sampler.get('type') != 'SeededSampler':  # it is, in a config that a run left behind
        loader.sampler = dict(type='SeededSampler', sampler=loader.sampler)
        loader.dataset = dict(type='SeededDataset', dataset=loader.dataset)
    add_hook(cfg, 'SeededIterationHook')


def add_hook(cfg: Config, name: str) -> None:
    """Add a hook without arguments to the config's `custom_hooks`, unless it is there."""
    hooks = list(cfg.get('custom_hooks') or [])
    if all(hook.get('type') != name for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type=name)]


def has_deploy_structure(path: str) -> bool:
    """Whether the UniRepLKNet in a checkpoint (a file or a URL) is re-parameterized.

    Raises:
        OSError, CheckpointError: as in `unireplknet_mm.checkpoint`; also where there is none in it.
    """
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='current')
    try:
        weights = checkpoints.extract_backbone_state_dict(checkpoint)
    except checkpoints.CheckpointError as error:
        raise UserError(f'checkpoint {path}: {error}') from error
    names = [name for name in weights if name.startswith('stages.')]
    return not any(name.endswith('.running_var') for name in names)


def build_runner(cfg: Config) -> Runner:
    """The runner of the config: MMEngine's Runner, or what `runner_type` names.

    It refuses a checkpoint that does not fit the model, where MMEngine would only warn.
    """
    add_hook(cfg, 'CheckpointCheckHook')
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
