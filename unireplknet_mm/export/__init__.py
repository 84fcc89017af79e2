"""Trained models as files that run without PyTorch and OpenMMLab.

A model becomes a `Deployable`, one function from a plain tensor to plain tensors, with its pre- and
postprocessing inside; a `Format` writes it to a file and reads it back as a `Runtime`; `comparison` holds
the two against each other. `launch/exporting.py` and `tools/export.py` put these together.
"""

from unireplknet_mm.export import (  # noqa: F401
    backbone,
    classification,
    detection,
    modalities,
    segmentation,
)
from unireplknet_mm.export.comparison import Comparison
from unireplknet_mm.export.deployable import (
    DEPLOYABLES,
    Deployable,
    deployable,
    find_deployable,
)
from unireplknet_mm.export.errors import ExportError
from unireplknet_mm.export.formats import FORMATS, PRECISIONS, Format, Runtime, find_format, load

__all__ = [
    'DEPLOYABLES',
    'FORMATS',
    'PRECISIONS',
    'Comparison',
    'Deployable',
    'ExportError',
    'Format',
    'Runtime',
    'deployable',
    'find_deployable',
    'find_format',
    'load',
]
