"""What PyTorch needs to know about the operators of a feed-forward part beside their kernels.

They are `torch.ops.unireplknet.feed_forward`, `.squeeze_excitation` and `.gelu_grn`. Fake (meta) functions of
all, FLOP formulas and autocast of the first two. These have no derivative: where one is needed, PyTorch's
own operators run. `gelu_grn` has one, in its own operator.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unireplknet_ops.choice import DTYPES
from unireplknet_ops.convolution_rules import empty_like_map
from unireplknet_ops.deferred import when_imported
from unireplknet_ops.errors import ArgumentError, demand
from unireplknet_ops.torch_internals import without_autocast


@functools.cache
def register() -> None:
    """Register everything for the operator that the CPU library has defined; once a process."""
    torch.library.register_fake('unireplknet::feed_forward', _fake_feed_forward)
    torch.library.register_fake('unireplknet::squeeze_excitation', _fake_squeeze_excitation)
    torch.library.register_fake('unireplknet::gelu_grn', _fake_gelu_grn)
    torch.library.register_fake('unireplknet::gelu_grn_backward', _fake_gelu_grn_backward)
    torch.library.register_autograd(
        'unireplknet::gelu_grn', _backward_of_operator, setup_context=_setup_context
    )
    _library.impl('feed_forward', _autocast_kernel, 'AutocastCPU')
    _library.impl('squeeze_excitation', _autocast_squeezing, 'AutocastCPU')
    when_imported('torch.utils.flop_counter', _register_flop_formula)


# What it registers lives as long as it does.
_library = torch.library.Library('unireplknet', 'IMPL')


def check_shapes(
    x: Tensor,
    input_scale: Tensor | None,
    weight1: Tensor,
    bias1: Tensor | None,
    gamma: Tensor,
    beta: Tensor | None,
    weight2: Tensor,
    output_scale: Tensor | None,
    bias2: Tensor | None,
    residual: Tensor | None,
) -> None:
    """Check that the shapes fit each other.

    Raises:
        ArgumentError: they do not; the message names the first that does not fit.
    """
    if x.dim() != 4:
        raise ArgumentError(f'x must have the shape (N, C, H, W), got {tuple(x.shape)}')
    batch, channels = x.shape[:2]
    if weight1.dim() != 2 or weight1.shape[1] != channels:
        raise ArgumentError(
            f'weight1 must have the shape (hidden, {channels}), got {tuple(weight1.shape)}'
        )
    hidden = weight1.shape[0]
    for name, tensor, shape in (
        ('weight2', weight2, (channels, hidden)),
        ('input_scale', input_scale, (batch, channels)),
        ('bias1', bias1, (hidden,)),
        ('gamma', gamma, (hidden,)),
        ('beta', beta, (hidden,)),
        ('output_scale', output_scale, (channels,)),
        ('bias2', bias2, (channels,)),
        ('residual', residual, tuple(x.shape)),
    ):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ArgumentError(f'{name} must have the shape {shape}, got {tuple(tensor.shape)}')


def _fake_feed_forward(
    x, input_scale, weight1, bias1, gamma, beta, weight2, output_scale, bias2, residual
) -> Tensor:
    vectors = (input_scale, bias1, gamma, beta, output_scale, bias2)
    check_shapes(
        x, input_scale, weight1, bias1, gamma, beta, weight2, output_scale, bias2, residual
    )
    demand(x.dtype in DTYPES, f'{x.dtype} is not supported: use float32')
    for tensor in (weight1, weight2, residual):
        demand(
            tensor is None or tensor.dtype == x.dtype,
            f'x is {x.dtype}, but a weight or the residual is not',
        )
    for tensor in vectors:
        demand(
            tensor is None or tensor.dtype in (torch.float32, x.dtype),
            'vectors must be float32 or of the dtype of x',
        )
    return empty_like_map(x)


def _autocast_kernel(
    x, input_scale, weight1, bias1, gamma, beta, weight2, output_scale, bias2, residual
) -> Tensor:
    """As linear layers have it: maps and weights take the autocast dtype, vectors stay float32."""
    dtype = torch.get_autocast_dtype('cpu')
    x, weight1, weight2, residual = (
        tensor if tensor is None else tensor.to(dtype) for tensor in (x, weight1, weight2, residual)
    )
    with without_autocast('cpu'):
        return torch.ops.unireplknet.feed_forward(
            x, input_scale, weight1, bias1, gamma, beta, weight2, output_scale, bias2, residual
        )


def _register_flop_formula() -> None:
    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(torch.ops.unireplknet.feed_forward)(_flops)
    register_flop_formula(torch.ops.unireplknet.squeeze_excitation)(_flops_of_squeezing)


def _flops(x_shape, input_scale_shape, weight1_shape, *args, out_shape=None, **kwargs) -> int:
    """Of the two products, as PyTorch counts linear layers."""
    batch, channels, height, width = x_shape
    return 4 * batch * height * width * channels * weight1_shape[0]


# Squeeze-and-Excitation.


def check_squeezing(
    x: Tensor, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None
) -> None:
    """Check that the shapes of `squeeze_excitation` fit each other.

    Raises:
        ArgumentError: they do not; the message names the first that does not fit.
    """
    if x.dim() != 4:
        raise ArgumentError(f'x must have the shape (N, C, H, W), got {tuple(x.shape)}')
    channels = x.shape[1]
    if weight1.dim() != 2 or weight1.shape[1] != channels:
        raise ArgumentError(
            f'weight1 must have the shape (squeezed, {channels}), got {tuple(weight1.shape)}'
        )
    squeezed = weight1.shape[0]
    for name, tensor, shape in (
        ('weight2', weight2, (channels, squeezed)),
        ('bias1', bias1, (squeezed,)),
        ('bias2', bias2, (channels,)),
    ):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ArgumentError(f'{name} must have the shape {shape}, got {tuple(tensor.shape)}')


def _fake_squeeze_excitation(x, weight1, bias1, weight2, bias2) -> Tensor:
    check_squeezing(x, weight1, bias1, weight2, bias2)
    demand(x.dtype in DTYPES, f'{x.dtype} is not supported: use float32')
    for tensor in (weight1, bias1, weight2, bias2):
        demand(tensor is None or tensor.dtype == x.dtype, f'x is {x.dtype}, but not all others are')
    return x.new_empty(x.shape[:2], dtype=torch.float32)


def _autocast_squeezing(x, *tensors) -> Tensor:
    dtype = torch.get_autocast_dtype('cpu')
    tensors = [None if tensor is None else tensor.to(dtype) for tensor in (x, *tensors)]
    with without_autocast('cpu'):
        return torch.ops.unireplknet.squeeze_excitation(*tensors)


def _flops_of_squeezing(x_shape, weight1_shape, *args, out_shape=None, **kwargs) -> int:
    return 4 * x_shape[0] * x_shape[1] * weight1_shape[0]


# GELU and GRN.


def check_rows(x: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor | None) -> None:
    """Check that the shapes of `gelu_grn` fit each other.

    Raises:
        ArgumentError: they do not; the message names the first that does not fit.
    """
    if x.dim() < 3:
        raise ArgumentError(
            f'x must have the shape (N, H, W, C) or (N, positions, C), got {tuple(x.shape)}'
        )
    shape = (x.shape[-1],)
    for name, tensor in (('bias', bias), ('gamma', gamma), ('beta', beta)):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ArgumentError(f'{name} must have the shape {shape}, got {tuple(tensor.shape)}')


def native_gelu_grn(x: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor | None) -> Tensor:
    """PyTorch's operators, each in the dtype that modules of the same layers would run it in."""
    hidden = F.gelu(x if bias is None else x + bias.to(x.dtype))
    return global_response_norm(hidden, gamma, beta)


def global_response_norm(x: Tensor, gamma: Tensor, beta: Tensor | None) -> Tensor:
    """GRN (ConvNeXt V2, arXiv 2301.00808) of x (N, ..., C), on PyTorch's operators, with its derivative.

    The norm over positions is taken in float32 for 16-bit inputs: 1e-6 would vanish in float16.

    Args:
        gamma, beta: of C values, of any shape that broadcasts to x.
    """
    norm_dtype = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    positions = list(range(1, x.dim() - 1))  # TorchScript makes no tuple of it
    norm = torch.linalg.vector_norm(x, dim=positions, keepdim=True, dtype=norm_dtype)
    response = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
    x = (gamma * response + 1).to(x.dtype) * x
    return x if beta is None else x + beta.to(x.dtype)


def _fake_gelu_grn(x, bias, gamma, beta) -> tuple[Tensor, Tensor]:
    check_rows(x, bias, gamma, beta)
    demand(x.dtype in DTYPES, f'{x.dtype} is not supported: use float32')
    for tensor in (bias, gamma, beta):
        demand(tensor is None or tensor.dtype == torch.float32, 'vectors must be float32')
    output = torch.empty_like(x, memory_format=torch.contiguous_format)
    return output, x.new_empty((x.shape[0], x.shape[-1]), dtype=torch.float32)


def _fake_gelu_grn_backward(
    grad_output, x, bias, gamma, norm
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    demand(grad_output.shape == x.shape, 'grad_output must have the shape of x')
    demand(grad_output.dtype == x.dtype, 'grad_output must have the dtype of x')
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return grad_x, *(torch.empty_like(gamma) for _ in range(3))


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _backward_of_operator(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return backward_of_gelu_grn(ctx, grad_output)


def backward_of_gelu_grn(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of x, bias, gamma and beta, None for those that are not asked for.

    Derivatives of higher order are those of PyTorch's operators.
    """
    *inputs, norm = ctx.saved_tensors
    needed = ctx.needs_input_grad
    if torch.is_grad_enabled():
        # By aliases, since one input may follow from another.
        inputs = [None if t is None else t.view_as(t) for t in inputs]
        output = native_gelu_grn(*inputs)
        wanted = [tensor for tensor, is_needed in zip(inputs, needed, strict=True) if is_needed]
        found = iter(torch.autograd.grad(output, wanted, grad_output, create_graph=True))
        return tuple(next(found) if is_needed else None for is_needed in needed)
    x, bias, gamma, _ = inputs
    grads = torch.ops.unireplknet.gelu_grn_backward(grad_output, x, bias, gamma, norm)
    return tuple(grad if is_needed else None for grad, is_needed in zip(grads, needed, strict=True))
