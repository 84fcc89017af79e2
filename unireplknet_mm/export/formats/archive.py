"""PyTorch's archives, `.pt2` files: ZIP files of parts that are not compressed."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from unireplknet_mm.export.formats.base import damaged
from unireplknet_mm.files import replacing


def check_archive(path: Path) -> None:
    """See that an archive is whole; PyTorch does not look at the checksums in it.

    Raises:
        ExportError: it is not.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, EOFError) as error:
        raise damaged(path, 'it is no archive, or its end is missing') from error
    except Exception as error:  # zlib's and others, of which kind depends on what has changed
        raise damaged(path, error) from error
    if part is not None:
        raise damaged(path, f'{part} in it has changed')


def rewrite_part(path: Path, suffix: str, change: Callable[[str], str]) -> None:
    """Put other texts in the place of the parts of an archive whose names end so."""
    with (
        replacing(path, keep_extension=True) as partial,
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(partial, 'w', zipfile.ZIP_STORED) as target,
    ):
        for part in source.infolist():
            # Without the padding before it, which would be taken for that of the new place.
            entry = zipfile.ZipInfo(part.filename, part.date_time)
            entry.file_size = part.file_size
            with source.open(part) as content, target.open(entry, 'w') as copy:
                if part.filename.endswith(suffix):
                    copy.write(change(content.read().decode()).encode())
                else:
                    shutil.copyfileobj(content, copy, 2**20)
