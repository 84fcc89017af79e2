"""Reading a pickle of arrays without running code from it.

`pickle.load` calls whatever a file names. Here nothing but NumPy's arrays, data types and numbers can come
out; any other name ends the reading.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unireplknet_mm.modalities.point_cloud.files import PointCloudError

try:
    from numpy._core.multiarray import _reconstruct, scalar
    from numpy._core.numeric import _frombuffer
except ImportError:  # NumPy 1
    from numpy.core.multiarray import _reconstruct, scalar
    from numpy.core.numeric import _frombuffer


def _encode(text: str, encoding: str) -> bytes:
    """In place of `_codecs.encode`, with which protocols before 3 write bytes."""
    if encoding not in ('latin1', 'latin-1'):
        raise pickle.UnpicklingError(f'bytes in the encoding {encoding!r}')
    return text.encode('latin-1')


def _names(modules: tuple[str, ...], **values: Any) -> dict[tuple[str, str], Any]:
    return {(module, name): value for module in modules for name, value in values.items()}


ALLOWED: dict[tuple[str, str], Callable] = {
    **_names(('numpy',), ndarray=np.ndarray, dtype=np.dtype),
    **_names(
        ('numpy.core.multiarray', 'numpy._core.multiarray'),
        _reconstruct=_reconstruct,
        scalar=scalar,
    ),
    **_names(('numpy.core.numeric', 'numpy._core.numeric'), _frombuffer=_frombuffer),
    **_names(('_codecs',), encode=_encode),
}


class _ArraysUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO):
        super().__init__(file, encoding='latin1')  # arrays that Python 2 wrote

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f'it names {module}.{name}, which is no array')
        return ALLOWED[module, name]


def read_arrays(path: Path) -> Any:
    """What is in a pickle: lists, tuples, dicts, numbers and NumPy arrays.

    Raises:
        PointCloudError: it cannot be read, is no pickle, or holds anything else.
    """
    try:
        with path.open('rb') as file:
            return _ArraysUnpickler(file).load()
    except OSError as error:
        raise PointCloudError(f'{path} cannot be read: {error.strerror or error}') from None
    # Whatever a damaged pickle makes of its own instructions.
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        ImportError,
        LookupError,
        MemoryError,
        TypeError,
        ValueError,
    ) as error:
        raise PointCloudError(f'{path} is no readable pickle of arrays: {error}') from None
