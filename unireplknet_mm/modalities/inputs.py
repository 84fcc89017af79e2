"""Kinds of files that predictions are made for: how each becomes a sample, and how a result is drawn.

`tools/predict.py` asks for these two things. A modality answers with an `InputKind`, registered in
`INPUT_KINDS` by what its configs import; of a config, it is the one whose transform its test pipeline loads
with.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from mmengine.registry import Registry
from torch import nn

from unireplknet_mm.configuration import type_name
from unireplknet_mm.errors import UserError
from unireplknet_mm.modalities.predictions import Prediction, Span

INPUT_KINDS = Registry('kind of input')
MARKER = '.made_by_predict'  # in a folder of pictures of predictions


class InputKind(ABC):
    """A kind of input: images, recordings, and so on."""

    name: ClassVar[str]  # in the plural, for messages
    loaders: ClassVar[tuple[str, ...]]  # the transforms that read it, by their names
    suffixes: ClassVar[tuple[str, ...]]  # of files that are looked for in folders, in lower case
    picture_suffix: ClassVar[str] = '.png'
    model: nn.Module | None = None

    def is_input(self, folder: Path) -> bool:
        """Whether a folder is one input, such as a video of single frames."""
        return False

    def find_damage(self, path: Path) -> str | None:
        """What is wrong with a file, where the loading transform would not notice it."""
        return None

    def watch(self, model: nn.Module) -> None:
        """Get the model before it predicts, for pictures that show what is inside it."""
        self.model = model

    @abstractmethod
    def sample(self, path: Path, index: int) -> dict[str, Any]:
        """What the config's data set would give its test pipeline for this input, without ground truth.

        Args:
            index: its number among all inputs.
        """

    def unfold(self, transforms: Sequence[Any]) -> list[Any]:
        """The transforms of the test pipeline, built, with what `divide` has to see taken out of others."""
        return list(transforms)

    def divide(self, sample: dict[str, Any], transform: Any) -> list[tuple[Span, dict[str, Any]]]:
        """The parts of a sample that the next transform would cut, to be predicted each; none: it stays so.

        Of each part where it lies, and what the transform gets; together they cover the sample.
        """
        return []

    def explain(self, prediction: Prediction) -> str | None:
        """How a prediction came about, in words, where that needs words."""
        return None

    @abstractmethod
    def draw(self, prediction: Prediction, transforms: Sequence[Any], config: dict) -> np.ndarray:
        """A picture of the input and what was predicted: (H, W, 3), uint8, RGB.

        Args:
            transforms: of the test pipeline, built; loading ones come first.
            config: the whole one.
        """


def find_kind(pipeline: Sequence[dict]) -> InputKind:
    """The kind that a test pipeline reads.

    Raises:
        UserError: none is known.
    """
    names = [type_name(transform) for transform in pipeline]
    for kind in INPUT_KINDS.module_dict.values():
        if set(kind.loaders) & set(names):
            return kind()
    known = [
        f'{kind.name} ({", ".join(kind.loaders)})' for kind in INPUT_KINDS.module_dict.values()
    ]
    raise UserError(
        f'the test pipeline of the config begins with {names[0] if names else "nothing"}; predict.py '
        f'reads what these load: {"; ".join(known)}. Series are for forecast.py.'
    )


def find_inputs(
    arguments: Sequence[str | Path], kind: InputKind, recursive: bool
) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """The inputs that files and folders stand for, each once, and the files in folders that are none.

    Hidden files and folders do not count, nor do pictures of earlier predictions. A file that is named
    itself is an input whatever its suffix.

    Args:
        recursive: search the folders in folders as well.

    Returns:
        For each input its path, and by what name it goes among the results, without a suffix: of a file that
        was found in a folder, the way there from the folder; and the other files.

    Raises:
        UserError: an argument does not exist, or there are no inputs.
    """
    found: dict[str, tuple[Path, Path]] = {}
    others: list[Path] = []
    nested = 0

    def add(path: Path, name: Path) -> None:
        found.setdefault(os.path.realpath(path), (path, name.with_suffix('')))

    for text in arguments:
        argument = Path(text)
        if not os.path.lexists(argument):
            if '://' in str(text):
                raise UserError(f'{text} is an address: download the file and give its path.')
            raise UserError(f'{argument} does not exist: name files or folders of {kind.name}.')
        if not argument.is_dir():
            add(argument, Path(argument.name))
            continue
        if kind.is_input(argument):
            add(argument, Path(argument.absolute().name))
            continue
        for folder, is_whole_input, files in _walk(argument, kind):
            if folder != argument and not recursive:
                nested += 1
            elif is_whole_input:
                add(folder, folder.relative_to(argument))
            else:
                for file in files:
                    if file.suffix.lower() in kind.suffixes:
                        add(file, file.relative_to(argument))
                    else:
                        others.append(file)
    if not found:
        places = ', '.join(map(str, arguments))
        hint = f'\n--recursive searches the {nested} folder(s) in it too.' if nested else ''
        raise UserError(f'there are no {kind.name} ({", ".join(kind.suffixes)}) in {places}.{hint}')
    return list(found.values()), others


def _walk(top: Path, kind: InputKind) -> Iterator[tuple[Path, bool, list[Path]]]:
    """Folder, whether it is one input, and its files; in the order of their names."""

    def refuse(error: OSError) -> None:
        raise UserError(f'folder {error.filename} cannot be searched: {error.strerror}.') from error

    for folder, subfolders, files in os.walk(top, onerror=refuse):
        path = Path(folder)
        is_whole_input = path != top and kind.is_input(path)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith('.')
            and not is_whole_input
            and not (path / name / MARKER).is_file()
        )
        yield (
            path,
            is_whole_input,
            [path / name for name in sorted(files) if not name.startswith('.')],
        )
