"""What a depthwise convolution of stride 1 with 'same' padding is, and which ones the operators compute."""

import torch
from torch import Tensor

from unireplknet_ops.errors import ArgumentError

# As in csrc/depthwise_conv2d/checks.h.
MAXIMUM_KERNEL_SIZE = 63
MAXIMUM_DILATION = 15
MAXIMUM_DILATED_KERNEL_SIZE = 9
DTYPES = dict(
    cpu=(torch.float32, torch.bfloat16, torch.float16, torch.float64),
    cuda=(torch.float32, torch.bfloat16, torch.float16),
)


def same_padding(kernel_size: tuple[int, int], dilation: int) -> tuple[int, int]:
    """Zeros on each side that leave a map its size; for odd kernel sizes (Kh, Kw)."""
    height, width = kernel_size
    return dilation * (height // 2), dilation * (width // 2)


def one_dilation(dilation) -> int:
    """The number in a pair of equal ones, which `F.conv2d` takes as well."""
    pair = tuple(dilation) if isinstance(dilation, (tuple, list)) else (dilation, dilation)
    is_whole = all(isinstance(number, (int, torch.SymInt)) for number in pair)
    if len(pair) != 2 or not is_whole or pair[0] != pair[1]:
        raise ArgumentError(f'dilation must be one whole number for both axes, got {dilation!r}')
    return pair[0]


def check_shapes(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> None:
    """Check what no implementation of a 'same' depthwise convolution could compute.

    Raises:
        ArgumentError: weight is not (C, 1, Kh, Kw) with the C of x (N, C, H, W) or (C, H, W), bias is
            not (C,), a kernel size is even, or the dilation is below 1.
    """
    if x.dim() not in (3, 4):
        raise ArgumentError(f'x must have the shape (N, C, H, W), got {tuple(x.shape)}')
    channels = x.shape[-3]
    if weight.dim() != 4 or weight.shape[1] != 1 or weight.shape[0] != channels:
        raise ArgumentError(
            f'weight must have the shape ({channels}, 1, Kh, Kw), one filter for each of the '
            f'{channels} channels of x {tuple(x.shape)}, got {tuple(weight.shape)}'
        )
    check_kernel_size(weight.shape[2:])
    if dilation < 1:
        raise ArgumentError(f'dilation must be at least 1, got {dilation}')
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != channels):
        raise ArgumentError(f'bias must have the shape ({channels},), got {tuple(bias.shape)}')


def check_kernel_size(kernel_size: tuple[int, int]) -> None:
    """ArgumentError if (Kh, Kw) are not odd: then no padding leaves a map its size."""
    height, width = kernel_size
    if height % 2 == 0 or width % 2 == 0:
        raise ArgumentError(
            f"kernel size {height}x{width} is even: 'same' padding needs odd sizes. Use an odd size, "
            "or torch's own convolution with a padding of your choice"
        )
    if height < 1 or width < 1:
        raise ArgumentError(f'kernel size {height}x{width} is below 1: use an odd size from 1 on')


def limit_reached(kernel_size: tuple[int, int], dilation: int) -> str | None:
    """Which limit of the operators a convolution exceeds, None if it is within all of them."""
    height, width = kernel_size
    if height % 2 == 0 or width % 2 == 0:
        return f'kernel size {height}x{width} is even'
    if height > MAXIMUM_KERNEL_SIZE or width > MAXIMUM_KERNEL_SIZE:
        return f'kernel size {height}x{width} is above {MAXIMUM_KERNEL_SIZE}'
    if dilation > MAXIMUM_DILATION:
        return f'dilation {dilation} is above {MAXIMUM_DILATION}'
    if dilation > 1 and (
        height > MAXIMUM_DILATED_KERNEL_SIZE or width > MAXIMUM_DILATED_KERNEL_SIZE
    ):
        return (
            f'kernel size {height}x{width} with dilation {dilation} is above '
            f'{MAXIMUM_DILATED_KERNEL_SIZE}, the largest dilated kernel'
        )
    return None


def empty_like_map(x: Tensor) -> Tensor:
    """A new tensor of the shape, dtype and memory format of the map `x`, whatever its strides."""
    memory_format = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return torch.empty_like(x, memory_format=memory_format)


def is_channels_last(x: Tensor) -> bool:
    """Whether the strides of (N, C, H, W) `x` rise in the order C, W, H, N, and it is not NCHW as well.

    So also for a slice of a channels_last map, of its channels too, as torch's convolutions and the
    operators see it.
    """
    if x.is_contiguous():
        return False
    least = 1
    for dimension in (1, 3, 2, 0):
        size, stride = x.shape[dimension], x.stride(dimension)
        if size == 1:
            continue
        if stride < least:
            return False
        least = stride * size
    return True
