"""Writing files so that each is either the old one or the new one, and checking folders beforehand."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unireplknet_mm.errors import FileError, UserError

PARTIAL = '.partial'
PARTIAL_NAME = re.compile(rf'\..+\.\d+{re.escape(PARTIAL)}(\.\w+)?')
# The disk is full, the user's quota is, the file is larger than the process may write.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

PROBE_SIZE = 4096  # a block: an empty file finds room on a full disk


class NoSpaceError(UserError, OSError):
    """A file does not fit where it is to be written. Its `errno` is one of `NO_SPACE`."""

    def __init__(self, message: str, number: int | None = None):
        super().__init__(message)
        self.errno = number


def no_space_error(
    error: OSError,
    path: str | Path | None = None,
    needs: str | None = None,
    elsewhere: str = 'write to another disk',
) -> NoSpaceError:
    """What to raise in the place of an error of `NO_SPACE`; of a `NoSpaceError`, itself.

    Args:
        error: the error.
        path: the file or its folder, where that is known.
        needs: how much it needs, in words, where that is known.
        elsewhere: what to do if no room can be made there.
    """
    if isinstance(error, NoSpaceError):
        return error
    way_out = f'Make room there, or {elsewhere}.'
    if error.errno == errno.EFBIG:
        limit = 'files may not be that large here'
        way_out = f'Raise the limit (ulimit -f), or {elsewhere}.'
    elif error.errno == errno.EDQUOT:
        limit = 'the disk quota is exceeded'
    elif path is None:
        limit = 'no space is left on its disk'
    else:
        path = Path(path)
        folder = next(place for place in (path, *path.absolute().parents) if place.is_dir())
        limit = f'{in_words(shutil.disk_usage(folder).free)} are free on its disk'
    reason = f'it needs {needs}, {limit}' if needs else limit
    return NoSpaceError(f'{path or "a file"} cannot be written: {reason}.\n{way_out}', error.errno)


@contextmanager
def naming_disks(*folders: str | Path) -> Iterator[None]:
    """Where an error of `NO_SPACE` does not say which file it is about, name one of the folders written to.

    It is the one with the least room.

    Raises:
        NoSpaceError: something did not fit.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        fullest = min(folders, key=lambda folder: shutil.disk_usage(folder).free)
        raise no_space_error(error, error.filename or fullest) from error


def in_words(size: int) -> str:
    """A number of bytes: '1.2 kB', '3.4 MB', '5.6 GB'."""
    for unit, factor in (('GB', 1e9), ('MB', 1e6)):
        if size >= factor:
            return f'{size / factor:.1f} {unit}'
    return f'{size / 1e3:.1f} kB'


@contextmanager
def replacing(
    path: str | Path, *, size: int | None = None, keep_extension: bool = False
) -> Iterator[Path]:
    """Yield a path to write to, in the folder of `path`; on leaving, it takes the place of `path`.

    What was written is on the disk before it takes the name. An exception in between removes it and leaves
    `path` as it was. The folder is created if it does not exist. A link stays; what it leads to is replaced.

    Args:
        path: the file.
        size: how many bytes will be written, where that is known, for the message of a NoSpaceError.
        keep_extension: for writers that look at it; others leave files behind, when they are killed, that
            no pattern such as `*.pth` finds.

    Raises:
        FileError: there is something else than a file, such as a folder or a device.
        NoSpaceError: it does not fit on the disk.
    """
    check_replaceable(path)
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    extension = path.suffix if keep_extension else ''
    partial = path.with_name(f'.{path.name}.{os.getpid()}{PARTIAL}{extension}')
    try:
        yield partial
        _flush_to_disk(partial)
        os.replace(partial, path)
    except BaseException as error:
        is_begun = partial.exists()
        written = partial.stat().st_size if is_begun else 0
        partial.unlink(missing_ok=True)
        if is_begun and isinstance(error, OSError) and error.errno in NO_SPACE:
            needs = in_words(size) if size is not None else f'more than {in_words(written)}'
            raise no_space_error(error, path, needs) from error
        raise
    _flush_to_disk(path.parent)


def check_replaceable(path: str | Path) -> None:
    """See that a file of this name may be written: there is none, or one, or a link to one.

    Raises:
        FileError: there is a folder, or a device, pipe or socket, whose name would be taken from it.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f'{path} is a folder: name a file.')
    if path.exists() and not path.is_file():
        raise FileError(f'{path} is no file, and cannot be replaced by one: name another one.')


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file whole, as `replacing` does."""
    with replacing(path, size=len(content)) as partial:
        partial.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole, in UTF-8, as `replacing` does."""
    write_bytes(path, text.encode())


def remove_partial_files(folder: str | Path) -> list[Path]:
    """Remove what `replacing` left in `folder` when its process was killed; return what it was."""
    partial_files = [
        path
        for path in sorted(Path(folder).glob(f'.*{PARTIAL}*'))
        if PARTIAL_NAME.fullmatch(path.name) and path.is_file()
    ]
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
        try:
            probe.write_bytes(bytes(PROBE_SIZE))
        finally:
            probe.unlink(missing_ok=True)
    except FileExistsError as error:
        raise UserError(
            f'{folder} is a file, not a folder.\nChoose another one with {option}.'
        ) from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise no_space_error(
                error, folder, elsewhere=f'choose another one with {option}'
            ) from error
        raise UserError(
            f'cannot write to {folder}: {error.strerror}.\nChoose another one with {option}.'
        ) from error


@contextmanager
def creating_folder(folder: str | Path, option: str) -> Iterator[None]:
    """As `create_folder`; where what follows fails, new folders with nothing in them go again.

    Raises:
        UserError: as in `create_folder`.
    """
    folder = Path(folder).absolute()
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        create_folder(folder, option)
        yield
    except BaseException:
        for path in new:
            try:
                path.rmdir()
            except OSError:  # not empty, or never made
                break
        raise


def _flush_to_disk(path: Path) -> None:
    if os.name == 'nt' and path.is_dir():
        return  # Windows opens no folders, and flushes no file that is open for reading alone
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
