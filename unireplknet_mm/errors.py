"""The errors that a user can mend, all of one base class.

Whatever a user can cause and put right (a path, a value, a file that does not fit) is raised on purpose as
a `UserError`; its message, one to four lines, names the value and the way out, and the tools print it
without a traceback. Everything else is a fault of the program and shows its traceback. Where callers expect
a built-in class, such as `ValueError` for a wrong argument, the error is that as well. `UserError`,
`ArgumentError` and `FileError` are the op package's, which raises them too.
"""

from collections.abc import Sequence

try:
    from unireplknet_ops.errors import ArgumentError, FileError, UserError
except ModuleNotFoundError as error:
    if error.name != 'unireplknet_ops':
        raise
    raise ModuleNotFoundError(
        'unireplknet_mm needs the package unireplknet_ops: in the checkout, pip install -e ./ops -e ., '
        'or put its folder ops/ on PYTHONPATH too',
        name=error.name,
    ) from None

__all__ = [
    'ArgumentError',
    'ExistingFileError',
    'FileError',
    'MissingFileError',
    'MissingPackageError',
    'UserError',
    'listed',
]


NAMED = 5  # names that a message lists


def listed(names: Sequence[str]) -> str:
    """The first of them, for a message."""
    return ', '.join(names[:NAMED]) + (', ...' if len(names) > NAMED else '')


class MissingFileError(FileError, FileNotFoundError):
    """A file or folder that is not there."""


class ExistingFileError(FileError, FileExistsError):
    """A file or folder that is in the way, and holds what must not be lost."""


class MissingPackageError(UserError, ImportError):
    """A Python package that is needed and not installed."""
