"""The errors that a user can mend, each also of the builtin class that says what kind it is."""


class UserError(Exception):
    """What the user can mend: the message says what was wrong and the way out, in one to four lines.

    Programs print it without a traceback.
    """


class ArgumentError(UserError, ValueError):
    """Arguments, a setting of a config, or an environment variable, that do not fit or are not known."""


class FileError(UserError, OSError):
    """A file or folder that cannot be read or written."""


class OpUnavailableError(UserError, RuntimeError):
    """The compiled op was asked for by name, and cannot run."""


class TuningTableError(UserError, ValueError):
    """A file that is no tuning table."""


def demand(condition: bool, message: str) -> None:
    """Raise a RuntimeError, as PyTorch's operators do, where a condition of an operator does not hold."""
    if not condition:
        raise RuntimeError(message)
