"""What the kernels compute, as loops over filter taps: to read first, and for the tests to compare.

With r = (K - 1) / 2, dilation d and zeros outside the map, so that the output is as large as the input,

    y[n, c, i, j] = b[c] + sum over u, v of  w[c, u, v] * x[n, c, i + (u - r) d, j + (v - r) d].

Each tap (u, v) multiplies one number of the filter with a window of the padded map. The arguments are those
of the operators of the same names; compute in float32 or float64.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1
) -> Tensor:
    """y: (N, C, H, W) from x (N, C, H, W), weight (C, 1, Kh, Kw) and bias (C,)."""
    output = torch.zeros_like(x)
    for u, v, window in windows(x, weight.shape[2:], dilation):
        output += weight[:, 0, u, v, None, None] * window
    return output if bias is None else output + bias[:, None, None]


def depthwise_conv2d_backward_input(
    grad_output: Tensor, weight: Tensor, dilation: int = 1
) -> Tensor:
    """dL/dx from dL/dy: where y reads x to the right, x is read from the left, so the filter is turned."""
    return depthwise_conv2d(grad_output, weight.flip(2, 3), None, dilation)


def depthwise_conv2d_backward_weight(
    grad_output: Tensor, x: Tensor, kernel_size: tuple[int, int], dilation: int = 1
) -> Tensor:
    """dL/dw from dL/dy: each tap's window meets dL/dy and is summed over images and positions."""
    grad_weight = x.new_empty((x.shape[1], 1, *kernel_size))
    for u, v, window in windows(x, kernel_size, dilation):
        grad_weight[:, 0, u, v] = (grad_output * window).sum((0, 2, 3))
    return grad_weight


def windows(
    x: Tensor, kernel_size: tuple[int, int], dilation: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Each tap and the view (N, C, H, W) of the padded map that it sees."""
    height, width = x.shape[2:]
    top, left = (dilation * (size - 1) // 2 for size in kernel_size)
    padded = F.pad(x, (left, left, top, top))
    for u in range(kernel_size[0]):
        for v in range(kernel_size[1]):
            row, column = u * dilation, v * dilation
            yield u, v, padded[:, :, row : row + height, column : column + width]
