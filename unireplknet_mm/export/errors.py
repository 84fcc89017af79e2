"""What is raised when a model does not become a file, or a file does not run."""

import re

from unireplknet_mm.errors import UserError

# How OpenVINO begins: "Exception from src/x.cpp:1:", "Check '...' failed at src/x.cpp:1:".
PLACE = re.compile(r"(Exception from|Check '.*' failed at) \S+:$")


class ExportError(UserError):
    """A model, size, format or file that cannot be, and the way out."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, without the places in OpenVINO's code that come before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not PLACE.match(line)] or lines
    return said[0][:240] if said else type(error).__name__
