"""Large-kernel depthwise convolution: forward and both gradients, on CPU and CUDA; see README.md."""

from unireplknet_ops import library
from unireplknet_ops.depthwise import (
    DepthwiseConv2d,
    DepthWiseConv2dImplicitGEMM,
    depthwise_conv2d,
    operators,
)
from unireplknet_ops.dispatch import choose_implementation, explain
from unireplknet_ops.errors import UserError
from unireplknet_ops.library import is_available
from unireplknet_ops.version import __version__

__all__ = [
    'DepthWiseConv2dImplicitGEMM',
    'DepthwiseConv2d',
    'UserError',
    '__version__',
    'choose_implementation',
    'depthwise_conv2d',
    'explain',
    'is_available',
    'library',
]

library.load()
if is_available('cpu'):
    operators.register()
