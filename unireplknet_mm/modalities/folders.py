"""What data sets share whose classes are folders."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mmengine.logging import print_log

from unireplknet_mm.configuration import as_names
from unireplknet_mm.errors import ArgumentError, listed


def not_hidden(folder: Path) -> Iterator[Path]:
    """What is in a folder, without the likes of `.ipynb_checkpoints` and of `._1.mp4`, which macOS leaves."""
    return (path for path in folder.iterdir() if not path.name.startswith('.'))


def classes_of(root: Path, stated: Sequence | None) -> tuple[str, ...]:
    """The classes in the order of their labels: as stated, or else the folders in `root`, sorted.

    Raises:
        ArgumentError: a folder there is none of those stated.
    """
    folders = sorted(path.name for path in not_hidden(root) if path.is_dir())
    classes = as_names(stated) or tuple(folders)
    if unknown := sorted(set(folders) - set(classes)):
        raise ArgumentError(f'{root} has folders that are no classes: {listed(unknown)}')
    return classes


def warn_of_empty_classes(
    place: str | Path, classes: Sequence[str], labels: Iterable[int], sample: str
) -> None:
    """Name the classes of which there is no sample, 'video' for instance: a folder may be misspelt."""
    filled = set(labels)
    empty = [name for label, name in enumerate(classes) if label not in filled]
    if empty:
        print_log(
            f'{place}: {len(empty)} of {len(classes)} classes have no {sample} there: {listed(empty)}',
            logger='current',
            level=logging.WARNING,
        )
