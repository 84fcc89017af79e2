"""What is raised when a model does not become a file, or a file does not run."""

from unireplknet_mm.errors import UserError


class ExportError(UserError):
    """A model, size, format or file that cannot be, and the way out."""
