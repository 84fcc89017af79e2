"""Writing a file so that it is either the old one or the new one."""

import contextlib
import os
from pathlib import Path

from unireplknet_ops.errors import FileError


def check_replaceable(path: str | os.PathLike) -> None:
    """See that a file of this name may be written: there is none, or one, or a link to one.

    Raises:
        FileError: there is something else, such as a folder or a device.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise FileError(f'{path} is no file, and cannot be replaced by one: name another one.')


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole, in UTF-8; its folder is created if it does not exist.

    Raises:
        FileError: it cannot be written; what was there before still is.
    """
    check_replaceable(path)
    target = Path(os.path.realpath(path))  # a link stays
    temporary = target.with_name(f'.{target.name}.{os.getpid()}.partial')
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding='utf-8')
        temporary.replace(target)
    except OSError as error:
        raise FileError(
            f'{path} cannot be written: {error.strerror or error}.\n'
            'Mend that, or choose another place.'
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
