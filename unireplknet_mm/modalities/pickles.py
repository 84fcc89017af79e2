"""Reading a pickle of arrays without running code from it.

`pickle.load` calls whatever a file names. Here nothing but NumPy's arrays, data types and numbers can come
out; any other name ends the reading.
"""

import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

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


# Whatever a damaged pickle makes of its own instructions.
UNREADABLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)


class ArraysUnpickler(pickle.Unpickler):
    """`load()` gives lists, tuples, dicts, numbers and NumPy arrays, or raises one of `UNREADABLE`.

    Args:
        file: open for reading bytes.
        also: what else a pickle may name, by module and name.
    """

    def __init__(self, file: BinaryIO, also: Mapping[tuple[str, str], Callable] | None = None):
        super().__init__(file, encoding='latin1')  # arrays that Python 2 wrote
        self.allowed = ALLOWED | dict(also or {})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f'it names {module}.{name}, which is no array')
        return self.allowed[module, name]
