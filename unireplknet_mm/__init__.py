"""UniRepLKNet for OpenMMLab: importing this package registers everything in MMEngine's registries.

In any mmpretrain, mmdet or mmseg config::

    custom_imports = dict(imports=['unireplknet_mm'])
    model = dict(backbone=dict(_delete_=True, type='UniRepLKNet', arch='t'))
"""

from unireplknet_mm import mmcv_ops  # first: what follows may import mmcv.ops

# isort: split
from unireplknet_mm import ops_of_checkout  # before the first import of unireplknet_mm.ops

# isort: split
from unireplknet_mm import checkpoint, datasets, engine, models, ops, weights
from unireplknet_mm.version import __version__

__all__ = [
    '__version__',
    'checkpoint',
    'datasets',
    'engine',
    'mmcv_ops',
    'models',
    'ops',
    'ops_of_checkout',
    'weights',
]
