"""The formats of files, by the name that `tools/export.py --format` has for each."""

from pathlib import Path

from unireplknet_mm.export.errors import ExportError
from unireplknet_mm.export.formats.aoti import AOTInductor
from unireplknet_mm.export.formats.base import PRECISIONS, Format, Runtime, Settings
from unireplknet_mm.export.formats.onnx import Onnx
from unireplknet_mm.export.formats.openvino import OpenVino
from unireplknet_mm.export.formats.torch_export import TorchExport

# A name is of the first whose suffix it ends with.
FORMATS: dict[str, Format] = {
    format.name: format for format in (Onnx(), AOTInductor(), TorchExport(), OpenVino())
}

__all__ = ['FORMATS', 'PRECISIONS', 'Format', 'Runtime', 'Settings', 'find_format', 'load']


def find_format(path: str | Path) -> Format:
    """The format of a file, by the end of its name.

    Raises:
        ExportError: it is none that is known.
    """
    for format in FORMATS.values():
        if str(path).endswith(format.suffix):
            return format
    known = ', '.join(f'{format.suffix} ({name})' for name, format in FORMATS.items())
    raise ExportError(f'{path}: the format of a file is told by the end of its name: {known}.')


def load(path: str | Path, threads: int | None = None) -> Runtime:
    """Read an exported file, to run it on the CPU.

    Args:
        threads: how many it computes with; default: what the runtime chooses.

    Raises:
        ExportError: it is no such file, it is damaged, or its runtime is not installed.
    """
    return find_format(path).load(Path(path), threads)
