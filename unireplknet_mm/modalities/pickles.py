"""Reading a pickle of arrays without running code from it.

`pickle.load` calls whatever a file names, and NumPy's own names are enough to read and write any memory: an
`ndarray` of objects over given bytes, or a data type whose flags deny that it has objects. So a pickle gets
stand-ins here, which build types from their names alone and arrays from as many bytes or objects as their
shape has; any other name ends the reading.
"""

import math
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

CODES = re.compile(r'[biufcmMSUO]\d+')  # of plain types; of objects too, which come as a list
UNITS = ('Y', 'M', 'W', 'D', 'h', 'm', 's', 'ms', 'us', 'ns', 'ps', 'fs', 'as')
# In place of the class, which is only named, as the first argument of _reconstruct.
NDARRAY = object()


class _StandIn:
    """A function that a pickle may call, without attributes that it could set."""

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError('it changes a function')


class _DataType:
    """In place of `numpy.dtype`: the type of a code, of the byte order and the unit in its state."""

    def __init__(self, code: str):
        if not (isinstance(code, str) and CODES.fullmatch(code)):
            raise pickle.UnpicklingError(f'it has arrays of the type {code!r:.40}')
        self.code = 'O' if code[0] == 'O' else code
        self.dtype = np.dtype(self.code)

    def __setstate__(self, state: Any) -> None:
        _, order, part, names, fields, size, *_ = state
        if order not in ('<', '>', '=', '|') or (part, names, fields) != (None, None, None):
            raise pickle.UnpicklingError('it has arrays of a type with parts')
        dtype = np.dtype(order + self.code)
        if dtype.kind in 'mM' and len(state) > 8:
            unit, count, divisor, _ = state[8][1]
            unit = unit.decode('ascii') if isinstance(unit, bytes) else unit
            if unit in UNITS and type(count) is int and count > 0 and divisor == 1:
                dtype = np.dtype(f'{dtype.str}[{count}{unit}]')
            elif unit != 'generic':
                raise pickle.UnpicklingError(f'it has dates in the unit {unit!r:.40}')
        if size not in (-1, dtype.itemsize):
            raise pickle.UnpicklingError(f'it has a type {dtype} of {size!r:.40} bytes')
        self.dtype = dtype


class _Array(np.ndarray):
    """In place of an array that waits for its state, which is checked."""

    def __setstate__(self, state: Any) -> None:
        version, shape, kind, is_fortran, content = state
        dtype = _plain(kind)
        if self.size or self.dtype != np.int8:
            raise pickle.UnpicklingError('it fills an array twice')
        if not all(type(length) is int and length >= 0 for length in shape):
            raise pickle.UnpicklingError(f'it has an array of shape {shape!r:.40}')
        if dtype.hasobject:
            found, wanted = len(content) if type(content) is list else -1, math.prod(shape)
        else:
            content = _as_bytes(content)
            found, wanted = len(content), math.prod(shape) * dtype.itemsize
        if found != wanted:
            raise pickle.UnpicklingError(f'it has an array of shape {shape} with other content')
        super().__setstate__((version, tuple(shape), dtype, bool(is_fortran), content))


def _plain(kind: Any) -> np.dtype:
    if not isinstance(kind, _DataType):
        raise pickle.UnpicklingError('it has an array without a type')
    return kind.dtype


def _as_bytes(content: Any) -> bytes:
    if isinstance(content, str):  # bytes of Python 2
        return content.encode('latin-1')
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError('it has numbers that are no bytes')
    return bytes(content)


def _without_objects(kind: Any) -> np.dtype:
    dtype = _plain(kind)
    if dtype.hasobject:
        raise pickle.UnpicklingError('it has objects made of bytes')
    return dtype


@_StandIn
def _data_type(code: str, *_: Any) -> _DataType:
    return _DataType(code)


@_StandIn
def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    if kind is not NDARRAY or shape != (0,) or code not in (b'b', 'b'):
        raise pickle.UnpicklingError('it has an array that NumPy does not write like this')
    return _Array((0,), np.int8)


@_StandIn
def _scalar(kind: Any, content: Any) -> Any:
    dtype, content = _without_objects(kind), _as_bytes(content)
    if len(content) != dtype.itemsize:
        raise pickle.UnpicklingError(f'it has a number of {len(content)} bytes, {dtype}')
    return np.frombuffer(content, dtype)[0]


@_StandIn
def _frombuffer(content: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
    array = np.frombuffer(_as_bytes(content), _without_objects(kind))
    return array.reshape(shape, order=order)


@_StandIn
def _encode(text: str, encoding: str) -> bytes:
    """In place of `_codecs.encode`, with which protocols before 3 write bytes."""
    if encoding not in ('latin1', 'latin-1'):
        raise pickle.UnpicklingError(f'bytes in the encoding {encoding!r}')
    return text.encode('latin-1')


def _names(modules: tuple[str, ...], **values: Any) -> dict[tuple[str, str], Any]:
    return {(module, name): value for module in modules for name, value in values.items()}


ALLOWED: dict[tuple[str, str], Any] = {
    **_names(('numpy',), ndarray=NDARRAY, dtype=_data_type),
    **_names(
        ('numpy.core.multiarray', 'numpy._core.multiarray'),
        _reconstruct=_reconstruct,
        scalar=_scalar,
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
    RecursionError,
    TypeError,
    ValueError,
)


class ArraysUnpickler(pickle.Unpickler):
    """`load()` gives lists, tuples, dicts, numbers and NumPy arrays, or raises one of `UNREADABLE`.

    The arrays are of plain types, or of objects of this list. `np.asarray` makes those of a private subclass,
    which check their state, ones of NumPy's.

    Args:
        file: open for reading bytes.
        also: what else a pickle may name and call, by module and name; no argument may make it do harm.
    """

    def __init__(self, file: BinaryIO, also: Mapping[tuple[str, str], Callable] | None = None):
        super().__init__(file, encoding='latin1')  # arrays that Python 2 wrote
        self.allowed = ALLOWED | dict(also or {})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f'it names {module}.{name}, which is no array')
        return self.allowed[module, name]
