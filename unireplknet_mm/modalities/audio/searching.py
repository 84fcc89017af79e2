"""Finding recordings in folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from unireplknet_mm.errors import MissingFileError
from unireplknet_mm.modalities.audio.recordings import SUFFIXES


def find_recordings(folder: str | Path) -> list[str]:
    """All recordings below a folder, by their suffixes, in the order of their paths.

    Links to folders are followed, but for those to a folder that they are in.

    Raises:
        MissingFileError: there is no such folder.
    """
    if not os.path.isdir(folder):
        raise MissingFileError(
            f'folder {folder}, in which recordings are looked for, does not exist'
        )
    return sorted(_walk(str(folder)))


def _walk(folder: str, above: tuple[str, ...] = ()) -> Iterator[str]:
    place = os.path.realpath(folder)
    if place in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith('.'):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, (*above, place))
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                yield entry.path
