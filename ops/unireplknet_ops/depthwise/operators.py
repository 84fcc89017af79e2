"""What PyTorch needs to know about the three compiled operators beside their kernels.

`torch.ops.unireplknet.depthwise_conv2d`, `.depthwise_conv2d_backward_input` and
`.depthwise_conv2d_backward_weight` get fake (meta) functions, derivatives of every order, autocast
and a FLOP formula. The schemas and the kernels are in C++ (`csrc/`).

Each operator is linear in each of its two maps or filters, so the derivatives close over the three:
with y = conv(x, w), y' = backward_input(g, w) and y'' = backward_weight(g, x),

    <g, conv(x, w)> = <backward_input(g, w), x> = <backward_weight(g, x), w>.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unireplknet_ops.convolution_rules import (
    check_shapes,
    empty_like_map,
    limit_reached,
    same_padding,
)
from unireplknet_ops.deferred import when_imported
from unireplknet_ops.dispatch import OP, Passes
from unireplknet_ops.torch_internals import without_autocast
from unireplknet_ops.tuning_tables import Pass


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
    if tensor.dim() != 4:
        raise RuntimeError(f'{name} must have the shape (N, C, H, W), got {tuple(tensor.shape)}')


def _check_same(name: str, tensor: Tensor, reference_name: str, reference: Tensor) -> None:
    if tensor.dtype != reference.dtype or tensor.device != reference.device:
        raise RuntimeError(
            f'{name} is {tensor.dtype} on {tensor.device} but {reference_name} is '
            f'{reference.dtype} on {reference.device}'
        )


def _check_limits(kernel_size: tuple[int, int], dilation: int) -> None:
    if (reason := limit_reached(kernel_size, dilation)) is not None:
        raise RuntimeError(f'{reason}; use F.conv2d')


def _fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1
) -> Tensor:
    _check_map('x', x)
    check_shapes(x, weight, bias, dilation)
    _check_limits(weight.shape[2:], dilation)
    _check_same('weight', weight, 'x', x)
    if bias is not None:
        _check_same('bias', bias, 'x', x)
    return empty_like_map(x)


def _fake_backward_input(grad_output: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    return _fake_forward(grad_output, weight, None, dilation)


def _fake_backward_weight(
    grad_output: Tensor, x: Tensor, kernel_size: list[int], dilation: int = 1
) -> Tensor:
    _check_map('x', x)
    _check_map('grad_output', grad_output)
    if grad_output.shape != x.shape:
        raise RuntimeError(f'grad_output is {tuple(grad_output.shape)} but x is {tuple(x.shape)}')
    _check_same('grad_output', grad_output, 'x', x)
    if len(kernel_size) != 2:
        raise RuntimeError(f'kernel_size must be (Kh, Kw), got {kernel_size}')
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
    return gradients(ctx, ctx.saved_tensors, grad_output, OP)


def gradients(
    ctx: Any, saved: Sequence[Tensor | None], grad_output: Tensor, passes: Passes
) -> tuple[Tensor | None, ...]:
    """Those of x, weight, bias and dilation, None for what is not asked for; `saved` by `setup_context`."""
    x, weight = saved
    needs_x, needs_weight, *others = ctx.needs_input_grad  # without the defaults at the end
    needs_bias = bool(others) and others[0]
    ops = torch.ops.unireplknet
    grad_x = grad_weight = grad_bias = None
    if needs_x and passes.grad_input == 'native':
        grad_x = native_gradient('grad_input', grad_output, grad_output, weight, ctx.dilation)
    elif needs_x:
        grad_x = ops.depthwise_conv2d_backward_input(grad_output, weight, ctx.dilation)
    if needs_weight and passes.grad_weight == 'native':
        like = grad_output.new_empty((x.shape[1], 1, *ctx.kernel_size))
        grad_weight = native_gradient('grad_weight', grad_output, x, like, ctx.dilation)
    elif needs_weight:
        grad_weight = ops.depthwise_conv2d_backward_weight(
            grad_output, x, ctx.kernel_size, ctx.dilation
        )
    if needs_bias:
        grad_bias = grad_output.sum((0, 2, 3))
    return grad_x, grad_weight, grad_bias, None


def native_gradient(
    name: Pass, grad_output: Tensor, x: Tensor, weight: Tensor, dilation: int
) -> Tensor:
    """One gradient of torch's own convolution; of the factor that it is the gradient of, only the sizes
    matter."""
    channels, kernel_size = weight.shape[0], weight.shape[2:]
    wanted = name == 'grad_input'
    gradients = torch.ops.aten.convolution_backward(
        grad_output,
        x,
        weight,
        None,
        [1, 1],
        same_padding(kernel_size, dilation),
        [dilation, dilation],
        False,
        [0, 0],
        channels,
        [wanted, not wanted, False],
    )
    return gradients[0 if wanted else 1]


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
    with without_autocast(grad.device.type):
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
    with without_autocast(grad.device.type):
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
        with without_autocast(device_type):
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
