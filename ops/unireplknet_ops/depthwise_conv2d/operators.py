"""What PyTorch needs to know about the three compiled operators beside their kernels.

`torch.ops.unireplknet.depthwise_conv2d`, `.depthwise_conv2d_backward_input` and
`.depthwise_conv2d_backward_weight` get fake (meta) functions, derivatives of every order, autocast
and a FLOP formula. The schemas and the kernels are in C++ (`csrc/`).

Each operator is linear in each of its two maps or filters, so the derivatives close over the three:
with y = conv(x, w), y' = backward_input(g, w) and y'' = backward_weight(g, x),

    <g, conv(x, w)> = <backward_input(g, w), x> = <backward_weight(g, x), w>.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from unireplknet_ops.deferred import when_imported
from unireplknet_ops.dispatch import (
    MAXIMUM_DILATED_KERNEL_SIZE,
    MAXIMUM_DILATION,
    MAXIMUM_KERNEL_SIZE,
)

AUTOCAST_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.AutocastCUDA
)


def check_shapes(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> None:
    """Check what no implementation of a 'same' depthwise convolution could compute.

    Raises:
        ValueError: weight is not (C, 1, Kh, Kw) with the C of x (N, C, H, W), bias is not (C,), a
            kernel size is even, or the dilation is below 1.
    """
    if x.dim() not in (3, 4):
        raise ValueError(f'x must have the shape (N, C, H, W), got {tuple(x.shape)}')
    channels = x.shape[-3]
    if weight.dim() != 4 or weight.shape[1] != 1 or weight.shape[0] != channels:
        raise ValueError(
            f'weight must have the shape ({channels}, 1, Kh, Kw), one filter for each of the '
            f'{channels} channels of x {tuple(x.shape)}, got {tuple(weight.shape)}'
        )
    kernel_height, kernel_width = weight.shape[2:]
    if kernel_height % 2 == 0 or kernel_width % 2 == 0:
        raise ValueError(
            f"kernel size {kernel_height}x{kernel_width} is even: 'same' padding needs odd sizes. "
            'Use an odd size, or F.conv2d with a padding of your choice'
        )
    if dilation < 1:
        raise ValueError(f'dilation must be at least 1, got {dilation}')
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != channels):
        raise ValueError(f'bias must have the shape ({channels},), got {tuple(bias.shape)}')


def limit_reached(kernel_size: tuple[int, int], dilation: int) -> str | None:
    """Which limit of the operators a convolution exceeds, None if it is within all of them."""
    height, width = kernel_size
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


@functools.cache
def register() -> None:
    """Register everything for the operators that the CPU library has defined; once a process."""
    for name, (fake, setup_context, backward, _) in _OPERATORS.items():
        torch.library.register_fake(f'unireplknet::{name}', fake)
        torch.library.register_autograd(
            f'unireplknet::{name}', backward, setup_context=setup_context
        )
    for device_type, key in (('cpu', 'AutocastCPU'), ('cuda', 'AutocastCUDA')):
        _library.impl('depthwise_conv2d', _autocast_kernel(device_type), key)
    when_imported('torch.utils.flop_counter', _register_flop_formulas)


# What it registers lives as long as it does.
_library = torch.library.Library('unireplknet', 'IMPL')


# Fake functions: shapes, dtypes and memory formats as the kernels return them.


def _check_map(name: str, tensor: Tensor) -> None:
    torch._check(
        tensor.dim() == 4,
        lambda: f'{name} must have the shape (N, C, H, W), got {tuple(tensor.shape)}',
    )


def _check_same(name: str, tensor: Tensor, reference_name: str, reference: Tensor) -> None:
    torch._check(
        tensor.dtype == reference.dtype and tensor.device == reference.device,
        lambda: (
            f'{name} is {tensor.dtype} on {tensor.device} but {reference_name} is '
            f'{reference.dtype} on {reference.device}'
        ),
    )


def _check_limits(kernel_size: tuple[int, int], dilation: int) -> None:
    reason = limit_reached(kernel_size, dilation)
    torch._check(reason is None, lambda: f'{reason}; use F.conv2d')


def _empty_like_map(x: Tensor) -> Tensor:
    memory_format = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
    return torch.empty_like(x, memory_format=memory_format)


def _is_channels_last(x: Tensor) -> bool:
    """Whether the strides rise in the order C, W, H, N: also a slice, as torch's convolutions see it."""
    if x.is_contiguous():
        return False
    least = 1
    for dimension in (1, 3, 2, 0):
        size, stride = x.shape[dimension], x.stride(dimension)
        if size == 1:
            continue
        if stride < least or (dimension == 1 and stride != 1):
            return False
        least = stride * size
    return True


def _fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1
) -> Tensor:
    _check_map('x', x)
    check_shapes(x, weight, bias, dilation)
    _check_limits(weight.shape[2:], dilation)
    _check_same('weight', weight, 'x', x)
    if bias is not None:
        _check_same('bias', bias, 'x', x)
    return _empty_like_map(x)


def _fake_backward_input(grad_output: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    return _fake_forward(grad_output, weight, None, dilation)


def _fake_backward_weight(
    grad_output: Tensor, x: Tensor, kernel_size: list[int], dilation: int = 1
) -> Tensor:
    _check_map('x', x)
    _check_map('grad_output', grad_output)
    torch._check(
        grad_output.shape == x.shape,
        lambda: f'grad_output is {tuple(grad_output.shape)} but x is {tuple(x.shape)}',
    )
    _check_same('grad_output', grad_output, 'x', x)
    torch._check(len(kernel_size) == 2, lambda: f'kernel_size must be (Kh, Kw), got {kernel_size}')
    weight = x.new_empty((x.shape[1], 1, *kernel_size))
    check_shapes(x, weight, None, dilation)
    _check_limits(weight.shape[2:], dilation)
    return weight


# Derivatives. `ctx` saves only what a gradient that is asked for needs.


def setup_context(ctx: Any, inputs: tuple, output: Tensor | None) -> None:
    x, weight, _, ctx.dilation = inputs
    ctx.kernel_size = weight.shape[2:]
    needs_x, needs_weight = ctx.needs_input_grad[:2]
    ctx.save_for_backward(x if needs_weight else None, weight if needs_x else None)


def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, *others = ctx.needs_input_grad  # without the defaults at the end
    needs_bias = bool(others) and others[0]
    ops = torch.ops.unireplknet
    grad_x = grad_weight = grad_bias = None
    if needs_x:
        grad_x = ops.depthwise_conv2d_backward_input(grad_output, weight, ctx.dilation)
    if needs_weight:
        grad_weight = ops.depthwise_conv2d_backward_weight(
            grad_output, x, ctx.kernel_size, ctx.dilation
        )
    if needs_bias:
        grad_bias = grad_output.sum((0, 2, 3))
    return grad_x, grad_weight, grad_bias, None


def _setup_backward_input(ctx: Any, inputs: tuple, output: Tensor) -> None:
    grad_output, weight, ctx.dilation = inputs
    ctx.kernel_size = weight.shape[2:]
    needs_grad_output, needs_weight = ctx.needs_input_grad[:2]
    ctx.save_for_backward(
        grad_output if needs_weight else None, weight if needs_grad_output else None
    )


def _backward_of_backward_input(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_output, weight = ctx.saved_tensors
    needs_grad_output, needs_weight = ctx.needs_input_grad[:2]
    ops = torch.ops.unireplknet
    first = second = None
    with torch._C._ExcludeDispatchKeyGuard(AUTOCAST_KEYS):
        if needs_grad_output:
            first = ops.depthwise_conv2d(grad, weight, None, ctx.dilation)
        if needs_weight:
            second = ops.depthwise_conv2d_backward_weight(
                grad_output, grad, ctx.kernel_size, ctx.dilation
            )
    return first, second, None


def _setup_backward_weight(ctx: Any, inputs: tuple, output: Tensor) -> None:
    grad_output, x, _, ctx.dilation = inputs
    needs_grad_output, needs_x = ctx.needs_input_grad[:2]
    ctx.save_for_backward(grad_output if needs_x else None, x if needs_grad_output else None)


def _backward_of_backward_weight(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_output, x = ctx.saved_tensors
    needs_grad_output, needs_x = ctx.needs_input_grad[:2]
    ops = torch.ops.unireplknet
    first = second = None
    with torch._C._ExcludeDispatchKeyGuard(AUTOCAST_KEYS):
        if needs_grad_output:
            first = ops.depthwise_conv2d(x, grad, None, ctx.dilation)
        if needs_x:
            second = ops.depthwise_conv2d_backward_input(grad_output, grad, ctx.dilation)
    return first, second, None, None


# Autocast, as F.conv2d has it: floating tensors other than float64 take the device's autocast dtype.


def cast_for_autocast(
    dtype: torch.dtype, x: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    return tuple(
        tensor.to(dtype)
        if tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float64
        else tensor
        for tensor in (x, weight, bias)
    )


def _autocast_kernel(device_type: str):
    def kernel(x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1) -> Tensor:
        dtype = torch.get_autocast_dtype(device_type)
        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST_KEYS):
            tensors = cast_for_autocast(dtype, x, weight, bias)
            return torch.ops.unireplknet.depthwise_conv2d(*tensors, dilation)

    return kernel


# FLOPs as PyTorch counts a convolution's: two a tap and position, padding included.


def _flops_forward(x_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    batch, channels, height, width = x_shape
    return 2 * batch * channels * height * width * weight_shape[2] * weight_shape[3]


def _flops_backward_weight(
    grad_output_shape, x_shape, kernel_size, *args, out_shape=None, **kwargs
) -> int:
    return _flops_forward(x_shape, (x_shape[1], 1, *kernel_size))


_OPERATORS = {
    'depthwise_conv2d': (_fake_forward, setup_context, backward, _flops_forward),
    'depthwise_conv2d_backward_input': (
        _fake_backward_input,
        _setup_backward_input,
        _backward_of_backward_input,
        _flops_forward,
    ),
    'depthwise_conv2d_backward_weight': (
        _fake_backward_weight,
        _setup_backward_weight,
        _backward_of_backward_weight,
        _flops_backward_weight,
    ),
}


def _register_flop_formulas() -> None:
    from torch.utils.flop_counter import register_flop_formula  # imports triton: 0.1 s

    for name, (*_, flops) in _OPERATORS.items():
        register_flop_formula(getattr(torch.ops.unireplknet, name))(flops)
