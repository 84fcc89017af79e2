"""The folder that `tools/predict.py --out` writes: a picture an input, and all results in one JSON file."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unireplknet_mm.errors import ExistingFileError
from unireplknet_mm.files import check_replaceable, create_folder, replacing, write_text

PICTURES = 'pictures'
RESULTS = 'predictions.json'
JPEG_QUALITY = 95


class PredictionFolder:
    """Writes pictures as they come and the results at the end, each file whole or not at all.

    Pictures have the names of their inputs; those that would share one get a number.

    Args:
        folder: new or not; files of an earlier prediction are replaced.
        inputs: for each input its path, and its name without a suffix.
        picture_suffix: '.png' or '.jpg'.

    Raises:
        UserError: the folder cannot be created or written.
        ExistingFileError: a picture would take the place of an input.
    """

    def __init__(
        self, folder: str | Path, inputs: Sequence[tuple[Path, Path]], picture_suffix: str
    ):
        self.folder = Path(folder)
        create_folder(self.folder, '--out')
        check_replaceable(self.folder / RESULTS)
        self.pictures: dict[Path, Path] = {}
        taken: set[str] = set()
        originals = {os.path.realpath(path) for path, _ in inputs}
        for path, name in inputs:
            candidate, number = name, 1
            # Some file systems do not tell capitals apart.
            while str(candidate).lower() in taken:
                number += 1
                candidate = name.with_name(f'{name.name}_{number}')
            taken.add(str(candidate).lower())
            picture = Path(PICTURES, f'{candidate}{picture_suffix}')
            if os.path.realpath(self.folder / picture) in originals:
                raise ExistingFileError(
                    f'{self.folder / picture} is to be predicted, and the picture of it would replace it.\n'
                    'Choose another folder with --out.'
                )
            self.pictures[path] = picture

    def write_picture(self, path: Path, picture: np.ndarray) -> Path:
        """Write the picture, (H, W, 3) uint8 RGB, of the input `path`; its way from the folder."""
        relative = self.pictures[path]
        with replacing(self.folder / relative, keep_extension=True) as partial:
            Image.fromarray(picture).save(partial, quality=JPEG_QUALITY)
        return relative

    def write_results(self, document: dict[str, Any]) -> Path:
        """Write the results of all inputs, a line each; the path of the file."""
        path = self.folder / RESULTS
        entries = (f'{json.dumps(key)}: {_to_json(value)}' for key, value in document.items())
        write_text(path, '{' + ',\n'.join(entries) + '}\n')
        return path


def _to_json(value: Any) -> str:
    """Of a list of records, a line a record."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return '[\n' + ',\n'.join(json.dumps(record, allow_nan=False) for record in value) + ']'
    return json.dumps(value, allow_nan=False)
