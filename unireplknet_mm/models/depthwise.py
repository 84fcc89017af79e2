"""Depthwise convolutions as the blocks build them, and what takes their place once a block is folded."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models.layers import (
    build_conv_layer,
    computes_as,
    is_untouched,
    with_parameters_like,
)
from unireplknet_ops import DepthwiseConv2d, DepthWiseConv2dImplicitGEMM
from unireplknet_ops.convolution_rules import same_padding


def build_depthwise_conv(
    channels: int, kernel_size: int, conv_cfg: dict | None, bias: bool, dilation: int = 1
) -> nn.Conv2d:
    return build_conv_layer(
        conv_cfg,
        channels,
        channels,
        kernel_size,
        padding=same_padding((kernel_size, kernel_size), dilation),
        dilation=dilation,
        groups=channels,
        bias=bias,
    )


def is_plain_conv(conv: nn.Module, kernel_size: int, dilation: int) -> bool:
    """Whether a convolution is the one that was built with these, free to run where it is fastest."""
    return (
        is_untouched(conv, DepthwiseConv2d, DepthWiseConv2dImplicitGEMM)
        and conv.implementation == 'auto'
        and conv.kernel_size == (kernel_size, kernel_size)
        and conv.dilation == (dilation, dilation)
        and conv.is_as_built()
    )


def check_folds(conv: nn.Module) -> None:
    """Check that a depthwise convolution has what `build_depthwise_conv` gives one of its size and dilation.

    Raises:
        ArgumentError: somebody has changed or wrapped it.
    """
    is_foldable = (
        computes_as(conv, nn.Conv2d)
        and conv.in_channels == conv.out_channels == conv.groups
        and conv.kernel_size[0] == conv.kernel_size[1]
        and conv.kernel_size[0] % 2 == 1
        and conv.dilation[0] == conv.dilation[1]
        and conv.stride == (1, 1)
        and conv.padding_mode == 'zeros'
        and conv.padding in ('same', same_padding(conv.kernel_size, conv.dilation[0]))
    )
    if not is_foldable:
        raise ArgumentError(
            f'{" ".join(str(conv).split())} does not fold: only depthwise convolutions of stride 1 do, '
            "with odd square kernels and zeros as 'same' padding"
        )


def conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor, conv_cfg: dict | None) -> nn.Conv2d:
    """A depthwise convolution with bias that takes the place of `conv`.

    Raises:
        ArgumentError: as in `check_folds`.
    """
    check_folds(conv)
    with torch.device('meta'):
        new = build_depthwise_conv(
            len(weight), weight.shape[-1], conv_cfg, bias=True, dilation=conv.dilation[0]
        )
    return with_parameters_like(new, conv, weight, bias)


def identity_conv(norm: _BatchNorm, conv_cfg: dict | None) -> nn.Conv2d:
    """A depthwise 1×1 convolution that changes nothing, for a norm to be folded into."""
    with torch.device('meta'):
        conv = build_depthwise_conv(norm.num_features, 1, conv_cfg, bias=False)
    ones = torch.ones_like(norm.running_mean).reshape(-1, 1, 1, 1)
    needs_grad = norm.weight is None or norm.weight.requires_grad
    conv.weight = nn.Parameter(ones, requires_grad=needs_grad)
    return conv.train(norm.training)
