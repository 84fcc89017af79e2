"""Writing a file so that it is either the old one or the new one."""

import contextlib
import os
from pathlib import Path

from unireplknet_ops.errors import FileError


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole, in UTF-8; its folder is created if it does not exist.

    Raises:
        FileError: it cannot be written; what was there before still is.
    """
    target = Path(os.path.realpath(path))  # a link stays
    if target.exists() and not target.is_file():
        raise FileError(f'{path} is no file, and cannot be replaced by one: name another one.')
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
