"""What is checked before anything is built: data, weights, checkpoints, folders."""

import os
from collections.abc import Iterator

from mmengine.config import Config
from torch import nn

from unireplknet_mm.configuration import drop_pretrained, find_dicts, find_pretrained, type_name
from unireplknet_mm.datasets.layouts import layout_of
from unireplknet_mm.engine.checkpoint_check import check_has_progress
from unireplknet_mm.errors import UserError
from unireplknet_mm.files import create_folder
from unireplknet_mm.models.state_dict import find_state_dict, require_prefix
from unireplknet_mm.models.whole_model import map_channels
from unireplknet_mm.weights.published import is_remote, local_path, where_to_get
from unireplknet_mm.weights.reading import CheckpointError, check_address, open_checkpoint

# What each tool needs of a config.
NEEDED = dict(
    train=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
    test=('model', 'test_dataloader', 'test_cfg', 'test_evaluator'),
    predict=('model', 'test_dataloader'),
    export=('model', 'test_dataloader'),
    reparameterize=('model',),
    publish=('model',),
    get_flops=('model',),
)


def check_complete(cfg: Config, kind: str) -> None:
    """See that a config says what a run needs.

    Args:
        kind: the tool's name, of `NEEDED`.

    Raises:
        UserError: something is missing.
    """
    missing = [key for key in NEEDED[kind] if cfg.get(key) is None]
    if missing:
        raise UserError(
            f'config {cfg.filename} has no {", no ".join(missing)}, which {kind}.py needs.\n'
            'Inherit them with _base_, as the configs of this suite do.'
        )


def create_work_dir(cfg: Config) -> None:
    """Create the work dir and try to write there, before the time for building a model is spent.

    Raises:
        UserError: it cannot be created or written.
    """
    create_folder(cfg.work_dir, '--work-dir')


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
    lines += where_to_get_data(dataset, loader)
    if layout_of(type_name(dataset)):
        lines.append('To run this config on generated data instead, add --demo-data.')
    return '\n'.join(lines)


def where_to_get_data(dataset: dict, loader: str) -> list[str]:
    """What to do for the data that the config of a data set asks for, in lines."""
    layout = layout_of(type_name(dataset))
    root = (dataset.get('data_root') or '.').rstrip('/')
    lines = layout.where_to_get(root) if layout else []
    return lines or [f'Set data_root, ann_file and data_prefix of {loader}.dataset in the config.']


def check_pretrained(cfg: Config) -> None:
    """See that the local files with weights to start from are there.

    A resumed training has its weights from the checkpoint: what is missing is left out.

    Raises:
        UserError: a file does not exist, or an address is none that is read.
    """
    if cfg.get('resume'):
        drop_pretrained(cfg.get('model'), is_missing)
        return
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
    for path in find_pretrained(cfg.get('model')):
        check_address(path)
        if is_missing(path):
            raise UserError(
                f'the file to start from, {_absolute(path)}, does not exist{where_to_get(path)}'
            )


def check_schedule(cfg: Config) -> None:
    """See that learning rates are scheduled within the training, and that gradients are accumulated at all.

    Raises:
        UserError: a scheduler ends before it begins, or `accumulative_counts` is no positive integer.
    """
    for scheduler in find_dicts(cfg.get('param_scheduler')):
        if 'type' not in scheduler:
            continue
        key = 'max_epochs' if scheduler.get('by_epoch', True) else 'max_iters'
        length = cfg.train_cfg.get(key)
        begin, end = scheduler.get('begin', 0), scheduler.get('end', length)
        if end is not None and end <= begin:
            name = type_name(scheduler)
            stated = f'ends at {end}' if 'end' in scheduler else f'the training ends at {end}'
            raise UserError(
                f'{name} of param_scheduler begins at {begin}, but {stated} (train_cfg.{key}={length}).\n'
                'A shorter training needs shorter schedules: set their begin and end too.'
            )
    for wrapper in find_dicts(cfg.optim_wrapper):
        count = wrapper.get('accumulative_counts', 1)
        if not isinstance(count, int) or count < 1:
            raise UserError(
                f'optim_wrapper.accumulative_counts is {count!r}: it counts the batches of an update step, '
                '1 without accumulation.'
            )


def is_missing(path: str) -> bool:
    """Whether a local file is not there; a URL or a published name is looked up when it is loaded."""
    return not is_remote(path) and not local_path(path).is_file()


def check_checkpoint(path: str) -> None:
    """See that a checkpoint that is asked for is there.

    Raises:
        UserError: the file does not exist, or the address is none that is read.
    """
    check_address(path)
    if not is_remote(path) and not local_path(path).exists():
        raise UserError(f'checkpoint {_absolute(path)} does not exist{where_to_get(path)}')


def check_content(cfg: Config, checkpoint: str) -> None:
    """See that a checkpoint holds what it is given for, before the time for building a model is spent.

    It has weights, those of a UniRepLKNet where the config names one, and for `cfg.resume` how far a training
    was. Whether they fit the model is seen when there is one, by `CheckpointCheckHook`, which leaves
    FlexibleRunner's checkpoints alone as well.

    Raises:
        UserError: it does not, or it cannot be read.
    """
    if type_name(dict(type=cfg.get('runner_type'))) == 'FlexibleRunner':
        return
    content = open_checkpoint(checkpoint)
    try:
        state_dict = find_state_dict(content)
        if any(type_name(config) == 'UniRepLKNet' for config in find_dicts(cfg.model)):
            require_prefix(state_dict)
        if cfg.get('resume'):
            check_has_progress(content)
    except CheckpointError as error:
        raise CheckpointError(f'checkpoint {checkpoint}: {error}') from None


def _absolute(path: str) -> str:
    return os.path.abspath(local_path(path))


def input_channels(cfg: Config, model: nn.Module) -> int:
    """The channels of what the backbone of a config's model takes.

    What the config says with `input_shape = (C, H, W)`; else those of the first UniRepLKNet in the model,
    which may be any number for time series; else 3. Of a model with an embedding, those of its maps.
    """
    return map_channels(model, cfg.get('input_shape'))


def input_size(cfg: Config) -> tuple[int, int] | None:
    """Height and width that a config states with `input_shape`; None where it does not.

    That is the shape of a sample: (C, H, W), (T, F) of audio, (frames, 3, H, W) of video.
    """
    return tuple(cfg.input_shape[-2:]) if cfg.get('input_shape') else None
