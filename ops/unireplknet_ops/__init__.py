"""Operators of large-kernel networks; see README.md.

Depthwise convolution: forward and both gradients, on CPU and CUDA. On the CPU, the feed-forward part of a
block and the factor of its Squeeze-and-Excitation for inference, its GELU and GRN for training, and the
Dilated Reparam Block for training.
"""

from unireplknet_ops import library
from unireplknet_ops.depthwise import (
    DepthwiseConv2d,
    DepthWiseConv2dImplicitGEMM,
    depthwise_conv2d,
    operators,
)
from unireplknet_ops.dilatedreparam import dilated_reparam, dilated_reparam_takes_op
from unireplknet_ops.dilatedreparam import operators as dilated_reparam_operators
from unireplknet_ops.dispatch import choose_implementation, explain
from unireplknet_ops.errors import UserError
from unireplknet_ops.feedforward import (
    feed_forward,
    feed_forward_takes_op,
    gelu_grn,
    gelu_grn_takes_op,
    squeeze_excitation,
)
from unireplknet_ops.feedforward import operators as feed_forward_operators
from unireplknet_ops.library import is_available
from unireplknet_ops.version import __version__

__all__ = [
    'DepthWiseConv2dImplicitGEMM',
    'DepthwiseConv2d',
    'UserError',
    '__version__',
    'choose_implementation',
    'depthwise_conv2d',
    'dilated_reparam',
    'dilated_reparam_takes_op',
    'explain',
    'feed_forward',
    'feed_forward_takes_op',
    'gelu_grn',
    'gelu_grn_takes_op',
    'is_available',
    'library',
    'squeeze_excitation',
]

library.load()
if is_available('cpu'):
    operators.register()
    feed_forward_operators.register()
    dilated_reparam_operators.register()
