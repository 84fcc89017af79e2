"""The layouts of data sets, a file each. A new one is found by being there.

A module of this package with a `LAYOUT`, a `Layout`, adds it to `LAYOUTS`; nothing else has to name it.
"""

import importlib
import pkgutil

from unireplknet_mm.datasets.layouts.base import Layout

__all__ = ['LAYOUTS', 'Layout', 'layout_of']


def _find_layouts() -> dict[str, Layout]:
    modules = (
        importlib.import_module(f'{__name__}.{module.name}')
        for module in pkgutil.iter_modules(__path__)
    )
    layouts = [module.LAYOUT for module in modules if hasattr(module, 'LAYOUT')]
    return {layout.name: layout for layout in layouts}


LAYOUTS = _find_layouts()  # by name


def layout_of(dataset_type: str) -> Layout | None:
    """The layout that a data set of this type (its bare name, such as 'CocoDataset') reads."""
    found = (layout for layout in LAYOUTS.values() if dataset_type in layout.dataset_types)
    return next(found, None)
