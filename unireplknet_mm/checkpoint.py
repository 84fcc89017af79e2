"""Weights: where the published ones are, how a file is read, and whether it fits a model.

- `PUBLISHED` is the table of the weights that the paper's authors published.
- `load_checkpoint_file` reads a file without running code from it. Importing this module makes MMEngine
  read local files and downloads with it; by itself, mmengine 0.10.7 cannot read its own checkpoints
  with torch >= 2.6, and onedl-mmengine falls back to running what a file contains.
- `load_backbone_weights` and `adapt_state_dict` take the published forms without a conversion step:
  a raw ImageNet file, a classifier, a detector, a segmenter. MMEngine only warns where names or shapes
  do not match; here a backbone that does not get all of its weights is an error.
"""

import argparse
import contextlib
import errno
import itertools
import logging
import os
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dist import barrier, get_rank
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, CheckpointLoader, FlexibleRunner, Runner
from torch import Tensor, nn

from unireplknet_mm.models.unireplknet import NUM_STAGES, UniRepLKNet, refuse_other_structure

WEIGHTS_PAGE = 'https://huggingface.co/DingXiaoH/UniRepLKNet'
# torch's own switch; torch.load heeds it only where the caller leaves weights_only open.
RUN_CODE_SWITCH = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'

# Where a checkpoint keeps its state dict: MMEngine and mmcv, the paper's trainer, DeepSpeed, and the
# averages that some trainers store alone.
STATE_DICT_KEYS = (
    'state_dict',
    'model',
    'module',
    'model_ema',
    'state_dict_ema',
    'ema_state_dict',
)
# A name that every UniRepLKNet has, in either structure, and no other network that we know of.
SIGNATURE = 'stages.0.0.pwconv1.1.weight'
BODY = ('downsample_layers.', 'stages.')

# How to tell the weights of other networks, for the error message: the first match counts.
OTHER_NETWORKS = (
    ('RepLKNet', r'\.(large_kernel|pw1\.conv)\.'),
    ('ResNet', r'(^|\.)layer1\.0\.conv1\.weight$'),
    ('Swin Transformer', r'\.relative_position_bias_table$'),
    ('InternImage', r'\.dcn\.'),
    ('ConvNeXt', r'(^|\.)stages\.0\.(0\.(pwconv1|pointwise_conv1)|blocks\.0\.conv_dw)\.weight$'),
    ('vision transformer', r'(^|\.)(cls_token|blocks\.0\.attn\.qkv\.weight)$'),
)


class CheckpointError(ValueError):
    """A file that is no checkpoint, or weights that do not fit the model. The message says which."""


class PublishedWeights(NamedTuple):
    """One file that the paper's authors published.

    `resolution` is the input's side in pixels, for detection width × height; `figure` is the paper's,
    None where the weights are meant for fine-tuning only.
    """

    file_name: str
    arch: str
    dataset: str
    resolution: str
    figure: str | None = None

    @property
    def url(self) -> str:
        return f'{WEIGHTS_PAGE}/resolve/main/{self.file_name}'


# Names as in the authors' `unireplknet.py` and README files, figures as in Tables 5 to 7. More detectors
# and segmenters are on WEIGHTS_PAGE; those files' names are not stated there.
IN1K, IN22K, IN22K_1K = 'ImageNet-1K', 'ImageNet-22K', 'ImageNet-22K, then ImageNet-1K'
PUBLISHED: dict[str, PublishedWeights] = {
    'unireplknet_a_in1k': PublishedWeights(
        'unireplknet_a_in1k_224_acc77.03.pth', 'a', IN1K, '224', 'top-1 77.0'
    ),
    'unireplknet_f_in1k': PublishedWeights(
        'unireplknet_f_in1k_224_acc78.58.pth', 'f', IN1K, '224', 'top-1 78.6'
    ),
    'unireplknet_p_in1k': PublishedWeights(
        'unireplknet_p_in1k_224_acc80.23.pth', 'p', IN1K, '224', 'top-1 80.2'
    ),
    'unireplknet_n_in1k': PublishedWeights(
        'unireplknet_n_in1k_224_acc81.64.pth', 'n', IN1K, '224', 'top-1 81.6'
    ),
    'unireplknet_t_in1k': PublishedWeights(
        'unireplknet_t_in1k_224_acc83.21.pth', 't', IN1K, '224', 'top-1 83.2'
    ),
    'unireplknet_s_in1k': PublishedWeights(
        'unireplknet_s_in1k_224_acc83.91.pth', 's', IN1K, '224', 'top-1 83.9'
    ),
    'unireplknet_s_in22k': PublishedWeights('unireplknet_s_in22k_pretrain.pth', 's', IN22K, '224'),
    'unireplknet_b_in22k': PublishedWeights('unireplknet_b_in22k_pretrain.pth', 'b', IN22K, '224'),
    'unireplknet_l_in22k': PublishedWeights('unireplknet_l_in22k_pretrain.pth', 'l', IN22K, '192'),
    'unireplknet_xl_in22k': PublishedWeights(
        'unireplknet_xl_in22k_pretrain.pth', 'xl', IN22K, '192'
    ),
    'unireplknet_s_in22k_to_in1k': PublishedWeights(
        'unireplknet_s_in22k_to_in1k_384_acc86.44.pth', 's', IN22K_1K, '384', 'top-1 86.4'
    ),
    'unireplknet_b_in22k_to_in1k': PublishedWeights(
        'unireplknet_b_in22k_to_in1k_384_acc87.40.pth', 'b', IN22K_1K, '384', 'top-1 87.4'
    ),
    'unireplknet_l_in22k_to_in1k': PublishedWeights(
        'unireplknet_l_in22k_to_in1k_384_acc87.88.pth', 'l', IN22K_1K, '384', 'top-1 87.9'
    ),
    'unireplknet_xl_in22k_to_in1k': PublishedWeights(
        'unireplknet_xl_in22k_to_in1k_384_acc87.96.pth', 'xl', IN22K_1K, '384', 'top-1 88.0'
    ),
    'cascade_unireplknet_t_in1k': PublishedWeights(
        'casc_mask_rcnn_unireplknet_t_in1k_3x_coco_ap51.75.pth',
        't',
        'COCO 2017',
        '1280×800',
        'box AP 51.8, mask AP 44.9',
    ),
    'cascade_unireplknet_xl_in22k': PublishedWeights(
        'casc_mask_rcnn_unireplknet_xl_in22k_3x_coco_ap56.39.pth',
        'xl',
        'COCO 2017',
        '1280×800',
        'box AP 56.4, mask AP 49.0',
    ),
    'upernet_unireplknet_t_in1k': PublishedWeights(
        'upernet_unireplknet_t_512_160k_ade20k_miou48.56.pth',
        't',
        'ADE20K',
        '512',
        'mIoU 48.6, multi-scale 49.1',
    ),
    'upernet_unireplknet_b_in22k': PublishedWeights(
        'upernet_unireplknet_b_in22k_640_160k_ade20k_miou53.52.pth',
        'b',
        'ADE20K',
        '640',
        'mIoU 53.5, multi-scale 53.9',
    ),
}


def load_checkpoint_file(
    path: str | os.PathLike, map_location: str | torch.device | Callable | None = 'cpu'
) -> dict[str, Any]:
    """Read a checkpoint without running code from it.

    Tensors, plain Python values and what MMEngine's checkpoints hold beside them (its log history,
    NumPy arrays and scalars, parsed arguments, configs) are read. With the environment variable
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 so is everything else, at the user's risk.

    Args:
        path: a local file.
        map_location: where tensors go, as in `torch.load`; None is 'cpu'.

    Returns:
        The checkpoint, a dict.

    Raises:
        FileNotFoundError, IsADirectoryError: there is no such file.
        CheckpointError: the file is truncated or corrupt, is no checkpoint, or needs more than
            the above.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        files = sorted(file.name for file in path.glob('*.pth'))
        hint = f': name a file in it, such as {files[-1]}' if files else ', and holds no *.pth'
        raise IsADirectoryError(f'checkpoint {path} is a directory{hint}')
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist{where_to_get(path)}')
    _check_beginning(path)
    run_code = os.environ.get(RUN_CODE_SWITCH, '0').lower() in ('1', 'y', 'yes', 'true')
    if run_code:
        print_log(
            f'{RUN_CODE_SWITCH} is set: reading {path} runs whatever code it contains.',
            logger='current',
            level=logging.WARNING,
        )
    already_safe = torch.serialization.get_safe_globals()  # and not ours to remove afterwards
    readable = [entry for entry in _readable_globals() if entry not in already_safe]
    with torch.serialization.safe_globals(readable):
        try:
            checkpoint = torch.load(
                path, map_location=map_location or 'cpu', weights_only=not run_code
            )
        except Exception as error:
            reason = _explain(path, error, run_code)
            if reason is None:
                raise
            raise CheckpointError(f'checkpoint {path} {reason}') from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{path} holds a {type(checkpoint).__name__}, not a checkpoint: save a model with '
            'torch.save(model.state_dict(), path)'
        )
    return checkpoint


def where_to_get(path: str | Path) -> str:
    """': download it from URL' for a file that the authors published, nothing for another."""
    for weights in PUBLISHED.values():
        if weights.file_name == Path(path).name:
            return f': download it from {weights.url}'
    return ''


def _check_beginning(path: Path) -> None:
    """Recognise what is no checkpoint from its first bytes: a zip archive or a pickle is one."""
    with path.open('rb') as file:
        beginning = file.read(16)
    if not beginning:
        raise CheckpointError(f'checkpoint {path} is empty: get or write it again')
    if not beginning.startswith((b'PK\x03\x04', b'\x80')):
        raise CheckpointError(
            f'{path} is not a checkpoint: it begins with {beginning!r}. A web page or a Git LFS pointer '
            'in its place means that the download went wrong'
        )


def _explain(path: Path, error: Exception, run_code: bool) -> str | None:
    """Why torch could not read the file, or None where the reason is not in the file."""
    damaged = 'is truncated or corrupt: get or write it again'
    if isinstance(error, MemoryError):
        return None
    if isinstance(error, OSError):  # the archive names a place before its beginning
        return damaged if error.errno == errno.EINVAL else None
    if run_code and isinstance(error, ImportError | AttributeError):
        return None  # it needs code that is not installed
    refused = re.findall(r'GLOBAL (\w[\w.]*)', str(error))[:1]
    if _is_archive(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = {name.rpartition('/')[2] for name in archive.namelist()}
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return damaged
        if 'constants.pkl' in names:
            return 'is a TorchScript archive: load it with torch.jit.load, or use its state dict'
        if 'data.pkl' not in names:
            return 'is a zip archive, but not one that torch.save wrote'
    if refused and isinstance(error, pickle.UnpicklingError):
        return _refusal(path, refused)
    try:
        torch.load(path, map_location='cpu', weights_only=True)
    except Exception:
        return damaged
    return None  # it was the device that could not take it


def _is_archive(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(2) == b'PK'


def _refusal(path: Path, refused: list[str]) -> str:
    """The message for a file that asks for other classes or functions than the readable ones."""
    with contextlib.suppress(Exception):  # cannot list those of torch's old format
        refused = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) or refused
    return (
        f'is refused: to read it, {", ".join(refused)} would have to run, and a crafted file can run '
        f'any code that way.\nIf you trust its source, set {RUN_CODE_SWITCH}=1 and try again'
    )


def _readable_globals() -> list:
    """What may occur in a checkpoint beside tensors and plain values; none of it runs code.

    NumPy's functions are listed by the names of both NumPy 1 and 2: a file may come from either.
    """
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    numpy_functions = [
        (getattr(multiarray, name), f'numpy.{package}.multiarray.{name}')
        for package in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ]
    numpy_dtypes = {type(np.dtype(code)) for code in np.typecodes['All'] if code != 'O'}
    return [
        HistoryBuffer,
        ConfigDict,
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        *numpy_dtypes,
        *numpy_functions,
        (_history_buffer_method, 'builtins.getattr'),
        (_plain_dict, 'collections.defaultdict'),
        dict,
        list,
        int,
        float,
    ]


def _history_buffer_method(owner: type, name: str) -> Callable:
    """`getattr` for the one use that MMEngine's checkpoints make of it: HistoryBuffer's statistics."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r} is not allowed')
    return getattr(HistoryBuffer, name)


def _plain_dict(default_factory: Callable | None = None) -> dict:
    """In place of a defaultdict, which torch's restricted reader cannot fill."""
    return {}


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """MMEngine's loader of local files, by `load_checkpoint_file`."""
    return load_checkpoint_file(filename, map_location)


@CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
def load_from_http(filename: str, map_location: Any = None) -> dict[str, Any]:
    """MMEngine's loader of URLs: download once into torch's cache, read by `load_checkpoint_file`.

    The first process downloads; the others wait, and find the file or, on other machines, download it.

    Raises:
        OSError: the download failed.
        CheckpointError: as in `load_checkpoint_file`.
    """
    directory = Path(torch.hub.get_dir()) / 'checkpoints'
    path = directory / Path(urlparse(filename).path).name
    if get_rank() == 0:
        _download(filename, path)
    barrier()
    _download(filename, path)
    try:
        return load_checkpoint_file(path, map_location)
    except CheckpointError as error:
        raise CheckpointError(f'{error}.\nTo download {filename} again, delete {path}') from None


def _download(url: str, path: Path) -> None:
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    print_log(f'Downloading {url} to {path}', logger='current')
    try:
        # Writes to a temporary file and moves it: an interrupted download leaves nothing behind.
        torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())
    except (OSError, HTTPException) as error:
        raise OSError(
            f'cannot download {url} ({error}). Download it elsewhere and give the path of the file, or '
            f'put it at {path}'
        ) from None


def find_state_dict(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The model's state dict in a checkpoint of any known form, as it is.

    Raises:
        CheckpointError: there are no tensors.
    """
    for key in STATE_DICT_KEYS:
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
            break
    if not any(isinstance(value, Tensor) for value in checkpoint.values()):
        raise CheckpointError(f'no weights in the checkpoint: it holds {_some(checkpoint)}')
    return checkpoint


def extract_backbone_state_dict(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The backbone's weights, by the backbone's own names, out of any checkpoint that has them.

    Args:
        checkpoint: a raw ImageNet file (`{'model': ...}` or the state dict itself), a classifier,
            detector or segmenter (`{'state_dict': {'backbone.*': ...}}`). Of a checkpoint with an
            average of the weights, MMEngine and mmdet 2 store the average under the ordinary names.

    Returns:
        `downsample_layers.*`, `stages.*` and the norms; of a raw file also `head.*`.

    Raises:
        CheckpointError: there is no UniRepLKNet in it.
    """
    state_dict = _unwrap_names(find_state_dict(checkpoint))
    prefix = _find_prefix(state_dict)
    return {
        name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)
    }


def _unwrap_names(state_dict: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Without the `module.` of DistributedDataParallel and its like."""
    if not any(name.startswith('module.') for name in state_dict):
        return state_dict
    unwrapped = OrderedDict(
        (name.removeprefix('module.'), value) for name, value in state_dict.items()
    )
    unwrapped._metadata = getattr(state_dict, '_metadata', OrderedDict())
    return unwrapped


def _find_prefix(state_dict: Mapping[str, Tensor]) -> str:
    """What the UniRepLKNet's names start with: '' in a raw file, 'backbone.' in a detector."""
    prefixes = [name[: -len(SIGNATURE)] for name in state_dict if name.endswith(SIGNATURE)]
    if not prefixes:
        raise CheckpointError(f'the weights are not of a UniRepLKNet: {_guess_network(state_dict)}')
    return 'backbone.' if 'backbone.' in prefixes else min(prefixes, key=len)


def _guess_network(state_dict: Mapping[str, Tensor]) -> str:
    for network, pattern in OTHER_NETWORKS:
        if any(re.search(pattern, name) for name in state_dict):
            return f"they look like a {network}'s ({_some(state_dict)})"
    return f'they are named {_some(state_dict)}'


def _some(names: Mapping[str, Any] | list[str], count: int = 3) -> str:
    shown = ', '.join(itertools.islice(map(str, names), count))
    return f'{shown}, ...' if len(names) > count else shown or 'nothing'


def read_architecture(weights: Mapping[str, Tensor]) -> dict[str, tuple]:
    """Depths, channels and kernel sizes from backbone-named weights, as in `arch_settings`."""
    pattern = re.compile(r'stages\.(\d)\.(\d+)\.dwconv\.(?:lk_origin\.)?weight')
    blocks: list[dict[int, torch.Size]] = [{} for _ in range(NUM_STAGES)]
    for name, weight in weights.items():
        match = pattern.fullmatch(name)
        if match and int(match[1]) < NUM_STAGES:
            blocks[int(match[1])][int(match[2])] = weight.shape
    return dict(
        depths=tuple(len(stage) for stage in blocks),
        channels=tuple(next(iter(stage.values()), (0,))[0] for stage in blocks),
        kernel_sizes=tuple(
            tuple(shape[-1] for _, shape in sorted(stage.items())) for stage in blocks
        ),
    )


def describe_architecture(settings: Mapping[str, tuple]) -> str:
    """In words: `UniRepLKNet-T (depths 3 3 18 3, channels 80 160 320 640)`."""
    numbers = ', '.join(
        f'{key} {" ".join(map(str, settings[key]))}' for key in ('depths', 'channels')
    )
    for arch, known in UniRepLKNet.ARCHITECTURES.items():
        if all(known[key] == settings[key] for key in known):
            return f'UniRepLKNet-{arch.upper()} ({numbers})'
    return f'a UniRepLKNet of {numbers}'


def check_backbone_weights(backbone: UniRepLKNet, weights: Mapping[str, Tensor]) -> None:
    """Check that every parameter of the stem, the downsampling layers and the stages is there.

    Output norms and heads may differ: raw ImageNet files have one final norm, detectors have four.

    Args:
        backbone: the network to be loaded.
        weights: by the backbone's own names; others are ignored.

    Raises:
        ValueError: re-parameterized weights in a training model or the reverse.
        CheckpointError: another arch, other kernels or branches, missing or surplus parameters.
    """
    weights = {name: value for name, value in weights.items() if name.startswith(BODY)}
    refuse_other_structure(backbone, weights, '')
    found, wanted = read_architecture(weights), backbone.arch_settings
    if any(found[key] != wanted[key] for key in ('depths', 'channels')):
        raise CheckpointError(
            f'the weights are of {describe_architecture(found)}, the model is '
            f'{describe_architecture(wanted)}: set `arch` of the backbone, or take other weights'
        )
    if found['kernel_sizes'] != wanted['kernel_sizes']:
        raise CheckpointError(
            f'the weights have kernel sizes {found["kernel_sizes"]}, the model '
            f'{wanted["kernel_sizes"]}: set `arch["kernel_sizes"]` of the backbone'
        )
    own = {
        name: value
        for name, value in backbone.state_dict().items()
        if name.startswith(BODY) and not name.endswith('num_batches_tracked')
    }
    missing = [name for name in own if name not in weights]
    surplus = [
        name for name in weights if name not in own and not name.endswith('num_batches_tracked')
    ]
    reshaped = [
        f'{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}'
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if missing or surplus or reshaped:
        kinds = (('missing', missing), ('surplus', surplus), ('of another shape', reshaped))
        raise CheckpointError(
            'the weights do not match the backbone: '
            + '; '.join(f'{len(names)} {kind} ({_some(names)})' for kind, names in kinds if names)
        )


def load_backbone_weights(backbone: UniRepLKNet, path: str) -> None:
    """Load a backbone from any published form of file: `init_cfg=dict(type='Pretrained', ...)`.

    Args:
        path: a local file or a URL.

    Raises:
        OSError, CheckpointError: the file is missing, damaged, refused or foreign, or its weights are
            of another arch or structure than the backbone.
    """
    checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='current')
    try:
        weights = extract_backbone_state_dict(checkpoint)
        check_backbone_weights(backbone, weights)
    except ValueError as error:
        raise CheckpointError(f'checkpoint {path}: {error}') from None
    own = backbone.state_dict()
    fitting = {name: value for name, value in weights.items() if name in own}
    backbone.load_state_dict(fitting, strict=False)
    anew = sorted({name.split('.')[0] for name in own.keys() - fitting.keys()} - {'stages'})
    unused = sorted({name.split('.')[0] for name in weights.keys() - fitting.keys()})
    summary = f'Loaded {describe_architecture(backbone.arch_settings)} from {path}.'
    if anew:
        summary += f' Not in the file, initialised anew: {", ".join(anew)}.'
    if unused:
        summary += f' Not used: {", ".join(unused)}.'
    print_log(summary, logger='current')


def adapt_state_dict(state_dict: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """A state dict under the names that `model` has, checked against its UniRepLKNet.

    Raw ImageNet weights get the names of a classifier (`backbone.*`, `head.fc.*`) or, in other models,
    of the backbone alone. A classifier, detector or segmenter is returned as it is. Heads are not
    checked: MMEngine skips those of another shape with a warning, as fine-tuning needs it.

    Args:
        state_dict: names and tensors, as `find_state_dict` returns them.
        model: what they are to be loaded into. Without a UniRepLKNet in it nothing is done.

    Raises:
        CheckpointError: the weights have no UniRepLKNet, or not one that fits.
    """
    model = _unwrap(model)
    backbones = {
        f'{name}.' if name else '': module
        for name, module in model.named_modules()
        if isinstance(module, UniRepLKNet)
    }
    if not backbones:
        return state_dict
    state_dict = _unwrap_names(state_dict)
    found = _find_prefix(state_dict)
    if found == '' and '' not in backbones:
        state_dict = _rename_raw(state_dict, model, list(backbones))
    for prefix, backbone in backbones.items():
        weights = {
            name[len(prefix) :]: value
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
        if SIGNATURE not in weights:
            raise CheckpointError(
                f'the weights have their UniRepLKNet under {found!r}, the model under {prefix!r}'
            )
        check_backbone_weights(backbone, weights)
    return state_dict


def _rename_raw(
    raw: Mapping[str, Tensor], model: nn.Module, prefixes: list[str]
) -> dict[str, Tensor]:
    own = model.state_dict().keys()
    renamed = OrderedDict()
    for name, value in raw.items():
        if name.startswith('head.'):
            new_names = [name.replace('head.', 'head.fc.', 1)]
        else:
            new_names = [prefix + name for prefix in prefixes]
        is_body = name.startswith(BODY)
        renamed.update((new, value) for new in new_names if is_body or new in own)
    return renamed


def _unwrap(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Adapts a checkpoint to the model before the runner loads it, and refuses one that does not fit.

    Without it MMEngine loads what matches, warns about the rest and goes on, so that a test of weights
    of another arch, or of ImageNet weights in a detector, ends in a low score instead of an error.
    With FlexibleRunner it does nothing: its strategies may hold and read shards, which do not compare.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which reads checkpoint['state_dict']

    def after_load_checkpoint(self, runner: Runner | FlexibleRunner, checkpoint: dict) -> None:
        if isinstance(runner, FlexibleRunner):
            return
        state_dict = adapt_state_dict(find_state_dict(checkpoint), runner.model)
        if not isinstance(runner._train_loop, BaseLoop):
            check_not_only_backbone(state_dict, runner.model)
        checkpoint['state_dict'] = state_dict


def check_not_only_backbone(state_dict: Mapping[str, Tensor], model: nn.Module) -> None:
    """Refuse to test a model of which only the backbone has weights.

    Raises:
        CheckpointError: no part with parameters beside the backbone is in the state dict.
    """
    model = _unwrap(model)
    parts = [
        name
        for name, part in model.named_children()
        if any(True for _ in part.parameters()) and not isinstance(part, UniRepLKNet)
    ]
    has_backbone = any(isinstance(module, UniRepLKNet) for module in model.modules())
    has_weights = any(name.startswith(f'{part}.') for part in parts for name in state_dict)
    if has_backbone and parts and not has_weights:
        raise CheckpointError(
            f'the checkpoint has weights for the backbone only, none for {", ".join(parts)} of the '
            f'{type(model).__name__}: test a trained one; pretrained weights belong in '
            'model.backbone.init_cfg'
        )
