"""The backbone and the functions that re-parameterize it."""

from unireplknet_mm.models.unireplknet import UniRepLKNet

__all__ = ['UniRepLKNet']
