"""Finding and reading the config to be swapped: a file, or `mmdet::NAME` of an installed package."""

import importlib.util
import re
from pathlib import Path

from mmengine.config import Config

from unireplknet_mm.swapping.swap import TASK_OF_SCOPE, SwapError, summarise

INSTALLED = re.compile(r'(\w+)::(.+)')
# What MMEngine replaces in a config by the name of the file that states it, without or with its extension.
FILE_NAME = re.compile(r'\{\{\s*fileBasename(NoExtension)?\s*\}\}')


def locate_config(name: str | Path) -> Path:
    """The file of a config that is named by its path, or as `PACKAGE::PATH` below the package's configs.

    Raises:
        SwapError: there is no such package or file.
    """
    match = INSTALLED.fullmatch(str(name))
    if match is None:
        path = Path(name)
        if not path.is_file():
            raise SwapError(
                f'config {name} does not exist. One of an installed toolbox is named as '
                'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py.'
            )
        return path
    package, relative = match.groups()
    try:
        root = package_folder(package)
    except SwapError as error:
        raise SwapError(f'{name}: {error}') from None
    # A wheel and an installed checkout have .mim; a checkout on PYTHONPATH has configs beside the package.
    folders = (root / '.mim' / 'configs', root.parent / 'configs')
    for folder in folders:
        if (folder / relative).is_file():
            return folder / relative
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    raise SwapError(f'{name} does not exist. To see those that do: ls {folder}')


def package_folder(package: str) -> Path:
    """Where an installed package is.

    Raises:
        SwapError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SwapError(f'the package {package} is not installed.')
    return Path(next(iter(spec.submodule_search_locations)))


def read_config(path: Path) -> Config:
    """Read a config in MMEngine's text style.

    Raises:
        SwapError: it is in the pure Python style, cannot be read, or is no config of a model.
    """
    if Config._is_lazy_import(str(path)):
        raise SwapError(
            f'config {path} is in the pure Python style (read_base), which a written config cannot inherit '
            'key by key; name the one in the text style, of the folder configs.'
        )
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program of the user's, and so is what it raises
        raise SwapError(
            f'config {path} cannot be read: {summarise(error.__cause__ or error)}'
        ) from error
    if 'model' not in cfg:
        scopes = ', '.join(TASK_OF_SCOPE)
        raise SwapError(f'config {path} has no model: a complete config of {scopes} is needed.')
    return cfg
