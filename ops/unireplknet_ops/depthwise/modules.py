"""Depthwise convolutions as modules: `nn.Conv2d` with another forward pass.

Attributes and state-dict keys are those of `nn.Conv2d`. The two `build_` functions take its arguments and
return one where a convolution is not depthwise with stride 1 and 'same' padding: for code that builds all
its convolutions in one place, such as mmcv's `conv_cfg`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireplknet_ops.convolution_rules import check_kernel_size, same_padding
from unireplknet_ops.depthwise.functional import depthwise_conv2d
from unireplknet_ops.dispatch import IMPLEMENTATIONS, unknown_implementation
from unireplknet_ops.errors import ArgumentError

torch.fx.wrap('depthwise_conv2d')  # a node of its own for torch.fx, which cannot trace its choice


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` for depthwise convolutions of stride 1 with 'same' padding, on `depthwise_conv2d`.

    Args:
        in_channels, out_channels, groups: C; `out_channels` and `groups` may be left out.
        kernel_size: K or (Kh, Kw), odd.
        stride: 1.
        padding: 'same', or the number that means it, dilation * (K - 1) / 2; kept as a number.
        dilation: one number for both axes.
        bias, device, dtype: as in `nn.Conv2d`.
        padding_mode: 'zeros'.
        implementation: 'auto', 'native' or 'op', as in `depthwise_conv2d`; an attribute that may be
            changed later.

    Raises:
        ArgumentError: any other value.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int | tuple[int, int] = 3,
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 'same',
        dilation: int | tuple[int, int] = 1,
        groups: int | None = None,
        bias: bool = True,
        padding_mode: str = 'zeros',
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        implementation: str = 'auto',
    ):
        if implementation not in IMPLEMENTATIONS:
            raise unknown_implementation(implementation)
        out_channels = in_channels if out_channels is None else out_channels
        groups = in_channels if groups is None else groups
        if not in_channels == out_channels == groups:
            raise ArgumentError(
                'a depthwise convolution has in_channels = out_channels = groups, got '
                f'{in_channels}, {out_channels}, {groups}: use nn.Conv2d'
            )
        if _pair(stride) != (1, 1) or padding_mode != 'zeros':
            raise ArgumentError(
                f"stride must be 1 and padding_mode 'zeros', got {stride} and {padding_mode!r}: use "
                'nn.Conv2d'
            )
        kernel_size = _pair(kernel_size)
        check_kernel_size(kernel_size)
        vertical, horizontal = _pair(dilation)
        if vertical != horizontal:
            raise ArgumentError(
                f'dilation must be the same for both axes, got {dilation}: use nn.Conv2d'
            )
        same = same_padding(kernel_size, vertical)
        if padding != 'same' and _pair(padding) != same:
            raise ArgumentError(
                f"padding must be 'same', which is {same} for kernel size "
                f'{kernel_size[0]}x{kernel_size[1]} and dilation {vertical}, got {padding}: use '
                'nn.Conv2d'
            )
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            padding=same,
            dilation=vertical,
            groups=groups,
            bias=bias,
            device=device,
            dtype=dtype,
        )
        self.implementation = implementation

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.jit.is_scripting():
            return F.conv2d(
                input, weight, bias, self.stride, self.padding, self.dilation, self.groups
            )
        if not self.is_as_built():
            return super()._conv_forward(input, weight, bias)
        return depthwise_conv2d(
            input, weight, bias, dilation=self.dilation[0], implementation=self.implementation
        )

    def is_as_built(self) -> bool:
        """Whether nobody has changed what the operator takes for granted, such as the stride."""
        vertical, horizontal = self.dilation
        return (
            self.stride == (1, 1)
            and vertical == horizontal
            and self.padding == same_padding(self.kernel_size, vertical)
            and self.padding_mode == 'zeros'
        )

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, implementation={self.implementation}'


# MMEngine's init_cfg looks for 'Conv2d' among the direct bases of a layer's class.
class DepthWiseConv2dImplicitGEMM(DepthwiseConv2d, nn.Conv2d):
    """`DepthwiseConv2d` under the name and signature of the op that the paper's code imports.

    The source of the signature is `depthwise_conv2d_implicit_gemm.py` of RepLKNet and SLaK. `padding` is
    what `F.conv2d` needs for the same result, where that module has 0.
    """

    def __init__(self, channels: int, kernel_size: int | tuple[int, int], bias: bool = False):
        super().__init__(channels, kernel_size=kernel_size, bias=bias)


def build_depthwise_conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    bias: bool = True,
    padding_mode: str = 'zeros',
    implementation: str = 'auto',
    **kwargs,
) -> nn.Conv2d:
    """A `DepthwiseConv2d` where it can be one, else the `nn.Conv2d` of the same arguments.

    Raises:
        ArgumentError: a depthwise convolution of stride 1 and even kernel size, padded by half of it.
    """
    arguments = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
    if _is_same_depthwise(*arguments[:-1], padding_mode):
        return DepthwiseConv2d(*arguments, padding_mode, **kwargs, implementation=implementation)
    return nn.Conv2d(*arguments, padding_mode, **kwargs)


def build_implicit_gemm(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    padding: str | int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    bias: bool = True,
    padding_mode: str = 'zeros',
    **kwargs,
) -> nn.Conv2d:
    """A `DepthWiseConv2dImplicitGEMM` where it can be one, else as `build_depthwise_conv2d`."""
    arguments = (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
    if _pair(dilation) == (1, 1) and _is_same_depthwise(*arguments, padding_mode) and not kwargs:
        return DepthWiseConv2dImplicitGEMM(in_channels, kernel_size, bias)
    return build_depthwise_conv2d(*arguments, bias, padding_mode, **kwargs)


def _is_same_depthwise(
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode
) -> bool:
    """Whether this is a depthwise convolution of stride 1, padded with zeros by about half its size."""
    vertical, horizontal = _pair(dilation)
    return (
        in_channels == out_channels == groups
        and _pair(stride) == (1, 1)
        and vertical == horizontal
        and padding_mode == 'zeros'
        and (padding == 'same' or _pair(padding) == same_padding(_pair(kernel_size), vertical))
    )


def _pair(value) -> tuple:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)
