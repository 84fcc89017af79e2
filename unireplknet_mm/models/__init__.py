"""The backbones, their building blocks and the functions that re-parameterize them."""

from unireplknet_mm.models.blocks import UniRepLKNetBlock
from unireplknet_mm.models.dilated_reparam_block import DilatedReparamBlock
from unireplknet_mm.models.mobilenet_v2 import LargeKernelMobileNetV2
from unireplknet_mm.models.replknet import FoldableRepLKNet
from unireplknet_mm.models.unireplknet import UniRepLKNet

__all__ = [
    'DilatedReparamBlock',
    'FoldableRepLKNet',
    'LargeKernelMobileNetV2',
    'UniRepLKNet',
    'UniRepLKNetBlock',
]
