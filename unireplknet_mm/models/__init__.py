"""The backbone, its building blocks and the functions that re-parameterize them."""

from unireplknet_mm.models.blocks import DilatedReparamBlock, UniRepLKNetBlock
from unireplknet_mm.models.unireplknet import UniRepLKNet

__all__ = ['DilatedReparamBlock', 'UniRepLKNet', 'UniRepLKNetBlock']
