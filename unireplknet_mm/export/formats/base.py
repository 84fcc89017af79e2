"""What a format of files does: write a `Deployable` to a file, and read it back as a `Runtime`."""

import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unireplknet_mm.errors import MissingPackageError
from unireplknet_mm.export.deployable import Deployable
from unireplknet_mm.export.errors import ExportError, first_line

PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16, 'int8': None}
METADATA_KEY = 'unireplknet_mm'  # under which a file holds its meta data, as JSON


@dataclass
class Settings:
    """How a file is to be.

    Attributes:
        precision: of `PRECISIONS`.
        dynamic: of `DYNAMIC`, what is left open.
        metadata: what the file says of itself; JSON takes it.
        calibration: inputs of one image each, for int8.
    """

    precision: str = 'fp32'
    dynamic: Collection[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    calibration: Iterable[Tensor] = ()


@dataclass
class Runtime:
    """A file that was read, ready to run on the CPU.

    Attributes:
        metadata: what was written with it.
        run: from an array as the file takes it to arrays by name.
    """

    metadata: dict[str, Any]
    run: Callable[[np.ndarray], dict[str, np.ndarray]]

    def __call__(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run it.

        Raises:
            ExportError: the file takes inputs of another shape or type, or does not run on this one.
        """
        self._check(inputs)
        try:
            return self.run(np.ascontiguousarray(inputs))
        except Exception as error:  # of whatever class the runtime has
            raise self._failure(inputs, error) from error

    def _failure(self, inputs: np.ndarray, error: Exception) -> ExportError:
        size = '×'.join(map(str, inputs.shape))
        batch, *others = self.metadata.get('input', {}).get('shape', [0])
        open_axes = [
            name
            for name, is_open in (('batch', batch is None), ('size', None in others))
            if is_open
        ]
        way_out = (
            f'\nExport it without --dynamic {",".join(open_axes)}, which the model does not allow, or with a '
            'larger --input-size.'
            if open_axes
            else ''
        )
        return ExportError(
            f'the file does not run on an input of {size}: {first_line(error)}{way_out}'
        )

    def _check(self, inputs: np.ndarray) -> None:
        stated = self.metadata.get('input')
        if stated is None:  # a file of somebody else's
            return
        shape, kind = stated['shape'], stated['dtype']
        fits = len(shape) == inputs.ndim and all(
            size in (None, own) for size, own in zip(shape, inputs.shape, strict=True)
        )
        if not fits or kind != str(inputs.dtype):
            takes = ', '.join('any' if size is None else str(size) for size in shape)
            raise ExportError(
                f'the file takes {stated["name"]} of ({takes}) in {kind}, not of {inputs.shape} in '
                f'{inputs.dtype}.\nWhat is fixed there was not left open with --dynamic.'
            )


class Format(ABC):
    """A format of files.

    Attributes:
        name: of `tools/export.py --format`.
        suffix: what the name of a file ends with.
        packages: that writing and running need.
        extra: of this distribution, which installs them; None where torch alone is enough.
        precisions: that it can hold.
        pointwise: the form of pointwise layers that its runtime is fastest with, of `rewriting.POINTWISE`.
        lowers_precision: whether the format itself does, of a model in float32.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str | None] = None
    precisions: ClassVar[tuple[str, ...]]
    pointwise: ClassVar[str] = 'linear'
    lowers_precision: ClassVar[bool] = False

    def parts(self, path: Path) -> list[Path]:
        """The files that one consists of, the one that is loaded last."""
        return [path]

    def check(self, precision: str) -> None:
        """See that it can be written here, before a model is built.

        Raises:
            MissingPackageError: a package is not installed.
            ExportError: it does not hold this precision.
        """
        self.check_packages(self.packages)
        if precision not in self.precisions:
            raise ExportError(
                f'--format {self.name} has no --precision {precision}: it has {", ".join(self.precisions)}.'
            )

    def advice(self, precision: str) -> str | None:
        """What has to be said to whoever runs a file by himself; None: it runs as it was compared."""
        return None

    def check_packages(self, packages: Iterable[str]) -> None:
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            raise MissingPackageError(
                f'{self.name} files need {", ".join(missing)}, not installed here: '
                f"pip install 'unireplknet-mm[{self.extra}]'"
            )

    @abstractmethod
    def write(
        self, deployable: Deployable, example: Tensor, path: Path, settings: Settings
    ) -> None:
        """Write the function to a file, in the precision that the deployable has, or int8.

        Args:
            example: an input, of at least two images where the batch is left open.

        Raises:
            ExportError: the format lacks something that the model does, or a size does not fit.
        """

    @abstractmethod
    def load(self, path: Path, threads: int | None = None) -> Runtime:
        """Read a file.

        Raises:
            ExportError: it is damaged, or no file of this format.
        """

    @abstractmethod
    def restate(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Put other meta data in the place of those that `write` wrote to a file."""

    def check_file(self, path: Path) -> None:
        """See that there is something to read.

        Raises:
            ExportError: there is not.
        """
        if not path.is_file():
            raise ExportError(f'{path} does not exist, or is no file.')
        if path.stat().st_size == 0:
            raise ExportError(f'{path} is empty: export it again.')


def damaged(path: Path, error: Exception | str) -> ExportError:
    """What to raise of a file that cannot be read."""
    reason = error if isinstance(error, str) else first_line(error)
    return ExportError(f'{path} is damaged or no file of this format ({reason}).\nExport it again.')


def complete_metadata(
    deployable: Deployable, example: Tensor, settings: Settings
) -> dict[str, Any]:
    """What a file says of itself: the settings' meta data, and what its tensors are."""
    description = deployable.describe()
    (open_axes,) = deployable.dynamic_shapes(settings.dynamic)
    shape = [None if axis in open_axes else size for axis, size in enumerate(example.shape)]
    kind = str(example.dtype).removeprefix('torch.')
    return dict(
        **settings.metadata,
        task=deployable.task,
        precision=settings.precision,
        input=dict(name=deployable.input_name, shape=shape, dtype=kind, **description['input']),
        outputs={name: description['outputs'][name] for name in deployable.output_names},
    )


@contextmanager
def running_with(threads: int | None) -> Iterator[None]:
    """Within it, torch computes with so many threads; None leaves them."""
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def encode(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, ensure_ascii=False, default=str)  # a config holds any object


def decode(text: str | None) -> dict[str, Any]:
    """What `encode` made; of a file that somebody else wrote, nothing."""
    return json.loads(text) if text else {}
