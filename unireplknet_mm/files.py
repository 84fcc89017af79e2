"""Writing files so that each is either the old one or the new one, and checking folders beforehand."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unireplknet_mm.errors import UserError

PARTIAL = '.partial'


@contextmanager
def replacing(path: str | Path, *, keep_extension: bool = False) -> Iterator[Path]:
    """Yield a path to write to, in the folder of `path`; on leaving, it takes the place of `path`.

    What was written is on the disk before it takes the name. An exception in between removes it and leaves
    `path` as it was. The folder is created if it does not exist.

    Args:
        path: the file.
        keep_extension: for writers that look at it; others leave files behind, when they are killed, that
            no pattern such as `*.pth` finds.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    extension = path.suffix if keep_extension else ''
    partial = path.with_name(f'.{path.name}.{os.getpid()}{PARTIAL}{extension}')
    try:
        yield partial
        _flush_to_disk(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush_to_disk(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole, in UTF-8, as `replacing` does."""
    with replacing(path) as partial:
        partial.write_text(text, encoding='utf-8')


def remove_partial_files(folder: str | Path) -> list[Path]:
    """Remove what `replacing` left in `folder` when its process was killed; return what it was."""
    partial_files = sorted(Path(folder).glob(f'.*{PARTIAL}*'))
    for partial in partial_files:
        partial.unlink(missing_ok=True)
    return partial_files


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


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
