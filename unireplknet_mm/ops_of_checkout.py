"""In a checkout, make `unireplknet_mm.ops` the folder ops/ that lies beside this package.

A wheel has it inside the package. A checkout on PYTHONPATH would, left to the import system, have no
`unireplknet_mm.ops`, or that of another checkout that is installed in editable mode.
"""

import importlib.util
import sys
from pathlib import Path


def import_ops() -> None:
    package = Path(__file__).parent
    if (package / 'ops' / '__init__.py').exists():
        return
    directory = package.parent / 'ops'
    if not (directory / '__init__.py').exists():
        raise ImportError(
            f'{directory} is missing: unireplknet_mm in a checkout needs the folder ops/ beside it; '
            'copy both, or install the package with pip'
        )
    spec = importlib.util.spec_from_file_location(
        'unireplknet_mm.ops',
        directory / '__init__.py',
        submodule_search_locations=[str(directory)],
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise


import_ops()
