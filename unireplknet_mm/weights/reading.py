"""Reading a checkpoint without running code from it.

Importing this module makes MMEngine read local files and downloads with `load_checkpoint_file`; by itself,
mmengine 0.10.7 cannot read its own checkpoints with torch >= 2.6, and onedl-mmengine falls back to running
what a file contains.
"""

import argparse
import contextlib
import difflib
import errno
import functools
import hashlib
import importlib.util
import logging
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dist import barrier, get_rank
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from unireplknet_mm.errors import MissingPackageError, UserError
from unireplknet_mm.files import NO_SPACE, no_space_error
from unireplknet_mm.weights import hub
from unireplknet_mm.weights.errors import (
    CheckpointError,
    CheckpointIsFolderError,
    DownloadError,
    MissingCheckpointError,
)
from unireplknet_mm.weights.published import (
    PUBLISHED,
    REPOSITORY,
    ZOOS,
    PublishedWeights,
    find_published,
    is_remote,
    local_path,
    where_to_get,
)

# torch's own switch; torch.load heeds it only where the caller leaves weights_only open.
RUN_CODE_SWITCH = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'
WEB = ('http://', 'https://')
DRIVE_PAGES = 'https://drive.google.com/'  # of Google Drive: no file has an address there
SAFETENSORS = '.safetensors'
# What MMEngine's own loaders of these schemes import.
BACKEND_PACKAGES = dict(s3='petrel_client', petrel='petrel_client', pavi='pavi')


def load_checkpoint_file(
    path: str | os.PathLike,
    map_location: str | torch.device | Callable | None = 'cpu',
    *,
    lazily: bool = False,
) -> dict[str, Any]:
    """Read a checkpoint, also a safetensors file, without running code from it.

    Tensors, plain Python values and what MMEngine's checkpoints hold beside them (its log history,
    NumPy arrays and scalars, parsed arguments, configs) are read. With the environment variable
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 so is everything else, at the user's risk.

    Args:
        path: a local file, also as `file://` or from `~`.
        map_location: where tensors go, as in `torch.load`; None is 'cpu'.
        lazily: leave the tensors on the disk until they are looked at, where the file's format allows.

    Returns:
        The checkpoint, a dict; of a safetensors file, its tensors as `state_dict` and the strings of its
        header as `meta`.

    Raises:
        MissingCheckpointError, CheckpointIsFolderError: there is no such file, or the name is empty.
        CheckpointError: the file is truncated or corrupt, is no checkpoint, or needs more than
            the above.
        MissingPackageError: it is a safetensors file, and that package is not installed.
    """
    _refuse_empty(path)
    path = local_path(path)
    if path.is_dir():
        files = sorted(file.name for file in path.glob('*.pth'))
        hint = f': name a file in it, such as {files[-1]}' if files else ', and holds no *.pth'
        raise CheckpointIsFolderError(f'checkpoint {path} is a directory{hint}')
    if not path.is_file():
        raise MissingCheckpointError(f'checkpoint {path} does not exist{where_to_get(path)}')
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path, map_location)
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
                path,
                map_location=map_location or 'cpu',
                weights_only=not run_code,
                mmap=lazily and _is_archive(path),
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


def _read_safetensors(
    path: Path, map_location: str | torch.device | Callable | None
) -> dict[str, Any]:
    if importlib.util.find_spec('safetensors') is None:
        raise MissingPackageError(
            f'checkpoint {path}: safetensors, which reads it, is not installed: pip install safetensors'
        )
    from safetensors import SafetensorError, safe_open

    device = map_location if isinstance(map_location, str | torch.device) else 'cpu'
    try:
        with safe_open(path, framework='pt') as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name).to(device) for name in names}
            return dict(state_dict=tensors, meta=file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(
            f'checkpoint {path} is no safetensors file, or a truncated or corrupt one ({error}): get or '
            'write it again'
        ) from error
    except OSError as error:
        raise CheckpointError(f'checkpoint {path} cannot be read: {error.strerror}') from error


def _check_beginning(path: Path) -> None:
    """Recognise what is no checkpoint from its first bytes: a zip archive or a pickle is one."""
    try:
        with path.open('rb') as file:
            beginning = file.read(16)
    except OSError as error:
        raise CheckpointError(f'checkpoint {path} cannot be read: {error.strerror}') from error
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
    """MMEngine's loader of local files, by `load_checkpoint_file`, and of names of `PUBLISHED`."""
    published = find_published(filename)
    if published is not None:
        return _load_published(published, map_location)
    check_address(filename)
    return load_checkpoint_file(filename, map_location)


@CheckpointLoader.register_scheme(prefixes=hub.HUB_URL, force=True)
def load_from_hub(filename: str, map_location: Any = None) -> dict[str, Any]:
    """MMEngine's loader of `hf://OWNER/NAME[@REVISION]/FILE`, read by `load_checkpoint_file`.

    Raises:
        UserError: as in `hub.download` and `load_checkpoint_file`.
    """
    return _load_hub_file(filename, map_location)


@CheckpointLoader.register_scheme(prefixes=WEB, force=True)
def load_from_http(filename: str, map_location: Any = None) -> dict[str, Any]:
    """MMEngine's loader of URLs: download once into torch's cache, read by `load_checkpoint_file`.

    The first process of each machine downloads; the others wait, and find the file.

    Raises:
        DownloadError: the download failed.
        NoSpaceError: it does not fit into the cache.
        CheckpointError: as in `load_checkpoint_file`, or the URL has no file name.
    """
    return _load_download(filename, map_location)


def check_address(source: str | os.PathLike) -> None:
    """See that there is a loader for what a URL or another store is addressed with; nothing is fetched.

    Raises:
        CheckpointError: nothing reads this scheme, the URL has no file name, or is a page, or one of
            MMEngine's zoos has no such name.
        MissingCheckpointError: the name is empty.
        MissingPackageError: the package for this scheme is not installed.
    """
    _refuse_empty(source)
    source = str(source)
    if '://' not in source or not is_remote(source):
        return
    if source.startswith(hub.HUB_URL):
        hub.parse_address(source)
        hub.check_installed(source)
        return
    scheme = source.partition('://')[0].rpartition(':')[2]
    if source.startswith(WEB):
        if source.startswith(DRIVE_PAGES):
            raise CheckpointError(
                f'{source} is a page to download from by hand: save its file and give the path of that'
            )
        if not _file_name(source):
            raise CheckpointError(
                f'{source} has no file name: give the whole URL of a checkpoint, to its .pth'
            )
        return
    loader = CheckpointLoader._get_checkpoint_loader(source)
    if loader is load_from_local:
        raise CheckpointError(
            f'checkpoint {source}: nothing here reads {scheme}://. Download the file and give its path, or '
            'give a URL of http:// or https://'
        )
    if source.startswith(ZOOS):
        _check_zoo_name(source)
    package = BACKEND_PACKAGES.get(scheme)
    is_mmengines = loader.__module__ == CheckpointLoader.__module__
    if is_mmengines and package and importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f'checkpoint {source}: MMEngine reads {scheme}:// with the package {package}, which is not '
            'installed. Install it, or download the file and give its path'
        )


def _refuse_empty(source: str | os.PathLike) -> None:
    """An empty name would be the current folder."""
    if not str(source):
        raise MissingCheckpointError(
            "checkpoint '' names no file: give a path, a URL or a published name"
        )


def _check_zoo_name(source: str) -> None:
    """See that one of MMEngine's tables of URLs has the name; its loaders look no further."""
    scheme, _, name = source.partition('://')
    if scheme in ('torchvision', 'modelzoo'):
        if importlib.util.find_spec('torchvision') is None:
            raise MissingPackageError(
                f'checkpoint {source}: torchvision, which knows its URL, is not installed. Install it, or '
                'download the file and give its path'
            )
        names = mmengine_checkpoint.get_torchvision_models().keys()
    elif scheme == 'mmcls':
        names = mmengine_checkpoint.get_mmcls_models().keys()
    else:
        names = (
            mmengine_checkpoint.get_external_models().keys()
            | mmengine_checkpoint.get_deprecated_model_names().keys()
        )
    if name not in names:
        close = difflib.get_close_matches(name, sorted(names), n=3)
        hint = f'; close are {", ".join(close)}' if close else ''
        raise CheckpointError(
            f'checkpoint {source}: MMEngine knows no {name!r} of {scheme}://{hint}. Correct the name, or '
            'give the path or URL of the file'
        )


def _file_name(url: str) -> str:
    return urlparse(url).path.rpartition('/')[2]


def _cached_name(url: str) -> str:
    """The name of a download in torch's cache, of its own for each URL.

    The published files keep torch's names, by which other programs, and users by hand, put them there.
    """
    name = _file_name(url)
    if any(url == weights.url for weights in PUBLISHED.values()):
        return name
    stem, extension = os.path.splitext(name)
    return f'{stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}{extension}'


def _cached_path(url: str) -> Path:
    return Path(torch.hub.get_dir()) / 'checkpoints' / _cached_name(url)


def _load_published(
    weights: PublishedWeights, map_location: Any = 'cpu', *, lazily: bool = False
) -> dict[str, Any]:
    """From torch's cache, where earlier downloads and users put it, or else through the hub's package.

    Without that package, from the file's URL. These files do not change: none that is there is asked for.
    """
    if not hub.is_installed():
        return _load_download(weights.url, map_location, lazily=lazily)
    path = _cached_path(weights.url)
    if path.is_file():
        return _read_cached(weights.url, path, map_location, lazily)
    file = hub.HubFile(REPOSITORY, weights.file_name)
    path = hub.find_cached(file) or hub.download(file)
    return _read_hub_file(file, path, map_location, lazily)


def _load_download(url: str, map_location: Any = 'cpu', *, lazily: bool = False) -> dict[str, Any]:
    check_address(url)
    path = _cached_path(url)
    if int(os.environ.get('LOCAL_RANK', get_rank())) == 0:  # the first process of each machine
        _download(url, path)
    barrier()
    _download(url, path)
    return _read_cached(url, path, map_location, lazily)


def _read_cached(url: str, path: Path, map_location: Any, lazily: bool) -> dict[str, Any]:
    try:
        return load_checkpoint_file(path, map_location, lazily=lazily)
    except CheckpointError as error:
        raise CheckpointError(f'{error}.\nTo download {url} again, delete {path}') from None


def _load_hub_file(
    address: str, map_location: Any = 'cpu', *, lazily: bool = False
) -> dict[str, Any]:
    file = hub.parse_address(address)
    return _read_hub_file(file, hub.download(file), map_location, lazily)


def _read_hub_file(
    file: hub.HubFile, path: Path, map_location: Any, lazily: bool
) -> dict[str, Any]:
    try:
        return load_checkpoint_file(path, map_location, lazily=lazily)
    except CheckpointError as error:
        blob = os.path.realpath(path)  # its link comes back by itself
        raise CheckpointError(f'{error}.\nTo download {file} again, delete {blob}') from None


def _download(url: str, path: Path) -> None:
    if path.is_file():
        return
    print_log(f'Downloading {url} to {path}', logger='current')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Writes to a temporary file and moves it: an interrupted download leaves nothing behind.
        torch.hub.download_url_to_file(url, str(path), progress=sys.stderr.isatty())
    except (OSError, HTTPException) as error:
        raise _download_error(url, path, error) from None


def _download_error(url: str, path: Path, error: OSError | HTTPException) -> UserError:
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        elsewhere = 'set TORCH_HOME to a folder on another disk'
        return no_space_error(error, path, elsewhere=elsewhere)
    return DownloadError(
        f'cannot download {url} ({error}). Download it elsewhere and give the path of the file, or '
        f'put it at {path}'
    )


def checking_the_name(load: Callable) -> Callable:
    """A loader of MMEngine's for one of its zoos, which answers an unknown name with a bare KeyError."""

    @functools.wraps(load)
    def load_from_known(filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        check_address(filename)
        return load(filename, *args, **kwargs)

    return load_from_known


for zoo in ZOOS:
    loader = CheckpointLoader._get_checkpoint_loader(zoo)
    if not hasattr(loader, '__wrapped__'):
        CheckpointLoader.register_scheme(zoo, checking_the_name(loader), force=True)


def saying_what_to_do(load: Callable) -> Callable:
    """MMEngine's `load_from_http`, which reads `torchvision://` and `open-mmlab://`, with readable errors."""

    @functools.wraps(load)
    def load_from_zoo(filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return load(filename, *args, **kwargs)
        except UserError:
            raise
        except (OSError, HTTPException) as error:
            path = Path(torch.hub.get_dir()) / 'checkpoints' / _file_name(filename)
            raise _download_error(filename, path, error) from None

    load_from_zoo.says_what_to_do = True
    return load_from_zoo


if not hasattr(mmengine_checkpoint.load_from_http, 'says_what_to_do'):
    mmengine_checkpoint.load_from_http = saying_what_to_do(mmengine_checkpoint.load_from_http)


def load_checkpoint(
    source: str | os.PathLike, map_location: str | torch.device | Callable | None = 'cpu'
) -> dict[str, Any]:
    """Read a checkpoint from a file, a URL, the hub, by a published name, or from where else MMEngine reads.

    Raises:
        UserError: as in `load_checkpoint_file`, or it could not be downloaded.
    """
    check_address(source)
    return CheckpointLoader.load_checkpoint(str(source), map_location, logger='silent')


def open_checkpoint(source: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint to look into: its tensors stay on the disk until they are used.

    Those of torch's old format, of safetensors, and of a store that MMEngine reads from, are read all the
    same.

    Args, errors: as in `load_checkpoint`.
    """
    published = find_published(source)
    if published is not None:
        return _load_published(published, lazily=True)
    if str(source).startswith(WEB):
        return _load_download(str(source), lazily=True)
    if str(source).startswith(hub.HUB_URL):
        return _load_hub_file(str(source), lazily=True)
    if is_remote(source):
        return load_checkpoint(source)
    return load_checkpoint_file(source, lazily=True)


def read_meta(source: str | os.PathLike) -> dict[str, Any]:
    """The `meta` of a checkpoint, {} where it has none or None.

    Args, errors: as in `load_checkpoint`.
    """
    return open_checkpoint(source).get('meta') or {}


def dataset_meta(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of the data of its training, such as `classes`; {} where it says nothing."""
    return (checkpoint.get('meta') or {}).get('dataset_meta') or {}
