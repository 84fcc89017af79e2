"""What can be wrong with weights as files."""

from unireplknet_mm.errors import UserError


class CheckpointError(UserError, ValueError):
    """A file that is no checkpoint, or weights that do not fit the model. The message says which."""


class MissingCheckpointError(UserError, FileNotFoundError):
    """There is no such file."""


class CheckpointIsFolderError(UserError, IsADirectoryError):
    """The path is one of a folder."""


class DownloadError(UserError, OSError):
    """A file could not be fetched."""
