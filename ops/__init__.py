"""Large-kernel depthwise convolution: forward and both gradients, on CPU and CUDA; see README.md."""

from unireplknet_mm.ops import library, operators
from unireplknet_mm.ops.dispatch import choose_implementation, explain
from unireplknet_mm.ops.functional import depthwise_conv2d
from unireplknet_mm.ops.library import is_available
from unireplknet_mm.ops.modules import DepthwiseConv2d, DepthWiseConv2dImplicitGEMM

__all__ = [
    'DepthWiseConv2dImplicitGEMM',
    'DepthwiseConv2d',
    'choose_implementation',
    'depthwise_conv2d',
    'explain',
    'is_available',
    'library',
]

library.load()
if is_available('cpu'):
    operators.register()
