"""The folder that `tools/predict.py --out` writes: a picture an input, and all results in one JSON file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unireplknet_mm.errors import ExistingFileError
from unireplknet_mm.files import check_replaceable, create_folder, replacing, write_text
from unireplknet_mm.modalities.inputs import MARKER

PICTURES = 'pictures'
RESULTS = 'predictions.json'
JPEG_QUALITY = 95
LONGEST_NAME = 180  # in bytes; with what `replacing` adds, a file system takes it


class PredictionFolder:
    """Writes pictures as they come and the results at the end, each file whole or not at all.

    Pictures have the names of their inputs; those that would share one get a number.

    Args:
        folder: new or not; files of an earlier prediction, which has left a marker, are replaced.
        inputs: for each input its path, and its name without a suffix.
        picture_suffix: '.png' or '.jpg'.

    Raises:
        UserError: the folder cannot be created or written.
        ExistingFileError: there are pictures or results that no prediction has made.
    """

    def __init__(
        self, folder: str | Path, inputs: Sequence[tuple[Path, Path]], picture_suffix: str
    ):
        self.folder = Path(folder)
        create_folder(self.folder, '--out')
        check_replaceable(self.folder / RESULTS)
        self._check_own()
        self.pictures: dict[Path, Path] = {}
        taken: set[str] = set()
        for path, name in inputs:
            name = name.with_name(_shorten(name.name))
            candidate, number = name, 1
            # Some file systems do not tell capitals apart.
            while str(candidate).lower() in taken:
                number += 1
                candidate = name.with_name(f'{name.name}_{number}')
            taken.add(str(candidate).lower())
            self.pictures[path] = Path(PICTURES, f'{candidate}{picture_suffix}')

    def _check_own(self) -> None:
        """See that what is there already is a prediction's."""
        pictures = self.folder / PICTURES
        if (pictures / MARKER).is_file():
            return
        others = [pictures] if pictures.is_dir() and any(pictures.iterdir()) else []
        others += [self.folder / RESULTS] if (self.folder / RESULTS).exists() else []
        if others:
            raise ExistingFileError(
                f'{others[0]} is there, and was not made by predict.py: nothing is replaced.\n'
                'Choose another folder with --out.'
            )

    def _mark(self) -> None:
        marker = self.folder / PICTURES / MARKER
        if not marker.is_file():
            write_text(marker, 'tools/predict.py made this folder, and replaces files in it.\n')

    def write_picture(self, path: Path, picture: np.ndarray) -> Path:
        """Write the picture, (H, W, 3) uint8 RGB, of the input `path`; its way from the folder."""
        self._mark()
        relative = self.pictures[path]
        with replacing(self.folder / relative, keep_extension=True) as partial:
            Image.fromarray(picture).save(partial, quality=JPEG_QUALITY)
        return relative

    def write_results(self, document: dict[str, Any]) -> Path:
        """Write the results of all inputs, a line each; the path of the file."""
        self._mark()
        path = self.folder / RESULTS
        entries = (f'{json.dumps(key)}: {_to_json(value)}' for key, value in document.items())
        write_text(path, '{' + ',\n'.join(entries) + '}\n')
        return path


def _shorten(name: str) -> str:
    """A file name of `LONGEST_NAME` bytes at most; names that are no text stay what they are."""
    how = 'surrogateescape'
    return name.encode(errors=how)[:LONGEST_NAME].decode(errors=how)


def _to_json(value: Any) -> str:
    """Of a list of records, a line a record."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return '[\n' + ',\n'.join(json.dumps(record, allow_nan=False) for record in value) + ']'
    return json.dumps(value, allow_nan=False)
