"""UniRepLKNet for OpenMMLab: importing this package registers everything in MMEngine's registries.

In any mmpretrain, mmdet or mmseg config::

    custom_imports = dict(imports=['unireplknet_mm'])
    model = dict(backbone=dict(_delete_=True, type='UniRepLKNet', arch='t'))
"""

# First: errors says so where unireplknet_ops is missing, and what follows may import mmcv.ops.
from unireplknet_mm import errors, mmcv_ops

# isort: split
from unireplknet_mm import checkpoint, datasets, engine, models, ops, weights
from unireplknet_mm.version import __version__

__all__ = [
    '__version__',
    'checkpoint',
    'datasets',
    'engine',
    'errors',
    'mmcv_ops',
    'models',
    'ops',
    'weights',
]
