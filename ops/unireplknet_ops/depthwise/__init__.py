"""Depthwise convolution of stride 1 with 'same' padding: one function, and modules on it."""

from unireplknet_ops.depthwise.functional import depthwise_conv2d
from unireplknet_ops.depthwise.modules import (
    DepthwiseConv2d,
    DepthWiseConv2dImplicitGEMM,
    build_depthwise_conv2d,
    build_implicit_gemm,
)

__all__ = [
    'DepthWiseConv2dImplicitGEMM',
    'DepthwiseConv2d',
    'build_depthwise_conv2d',
    'build_implicit_gemm',
    'depthwise_conv2d',
]
