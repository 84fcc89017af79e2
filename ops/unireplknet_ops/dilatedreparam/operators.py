"""What PyTorch needs to know about `torch.ops.unireplknet.dilated_reparam` beside its kernels.

Fake (meta) functions, autograd, autocast and FLOP formulas. Backward computes the branches again from x, so
that x is all of the size of a map that is kept for it.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unireplknet_ops.choice import DTYPES
from unireplknet_ops.convolution_rules import empty_like_map
from unireplknet_ops.deferred import when_imported
from unireplknet_ops.dilatedreparam import naive
from unireplknet_ops.errors import ArgumentError, demand
from unireplknet_ops.torch_internals import is_batched, without_autocast


@functools.cache
def register() -> None:
    """Register everything for the operators that the CPU library has defined; once a process."""
    torch.library.register_fake('unireplknet::dilated_reparam', _fake_forward)
    torch.library.register_fake('unireplknet::dilated_reparam_backward', _fake_backward)
    torch.library.register_autograd(
        'unireplknet::dilated_reparam', _backward_of_lists, setup_context=_setup_context
    )
    _library.impl('dilated_reparam', _autocast_kernel, 'AutocastCPU')
    when_imported('torch.utils.flop_counter', _register_flop_formulas)


# What it registers lives as long as it does.
_library = torch.library.Library('unireplknet', 'IMPL')


def check_shapes(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    scales: Sequence[Tensor],
    shifts: Sequence[Tensor],
    eps: Sequence[float],
) -> None:
    """Check that the shapes fit each other.

    Raises:
        ArgumentError: they do not, a kernel size is even, or a dilation is below 1.
    """
    if x.dim() != 4:
        raise ArgumentError(f'x must have the shape (N, C, H, W), got {tuple(x.shape)}')
    counts = [len(values) for values in (weights, dilations, scales, shifts, eps)]
    if counts[0] == 0 or len(set(counts)) > 1:
        raise ArgumentError(
            'weights, dilations, scales, shifts and eps must have one entry a branch, got '
            f'{", ".join(map(str, counts))}'
        )
    channels = x.shape[1]
    for weight in weights:
        size = weight.shape[-1] if weight.dim() == 4 else 0
        if tuple(weight.shape) != (channels, 1, size, size) or size % 2 == 0:
            raise ArgumentError(
                f'a weight must have the shape ({channels}, 1, k, k) with an odd k, got '
                f'{tuple(weight.shape)}'
            )
    for dilation in dilations:
        if dilation < 1:
            raise ArgumentError(f'a dilation must be at least 1, got {dilation}')
    for name, vectors in (('scale', scales), ('shift', shifts)):
        for vector in vectors:
            if tuple(vector.shape) != (channels,):
                raise ArgumentError(
                    f'a {name} must have the shape ({channels},), got {tuple(vector.shape)}'
                )


def _fake_forward(x, weights, dilations, scales, shifts, eps) -> tuple[Tensor, Tensor, Tensor]:
    check_shapes(x, weights, dilations, scales, shifts, eps)
    demand(x.dtype in DTYPES, f'{x.dtype} is not supported: use float32')
    for tensor in (*weights, *scales, *shifts):
        demand(tensor.dtype == torch.float32, 'weights, scales and shifts must be float32')
    statistics = [x.new_empty((len(weights), x.shape[1]), dtype=torch.float32) for _ in range(2)]
    return empty_like_map(x), *statistics


def _fake_backward(
    grad_output, x, weights, dilations, scales, mean, var, eps
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
    demand(
        grad_output.dtype == x.dtype,
        f'grad_output has dtype {grad_output.dtype} but x has {x.dtype}',
    )
    vectors = [[torch.empty_like(scale) for scale in scales] for _ in range(2)]
    return empty_like_map(x), [torch.empty_like(weight) for weight in weights], *vectors


# Derivatives.


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weights, dilations, scales, shifts, eps = inputs
    save(ctx, x, weights, dilations, scales, shifts, eps, output[1:])


def save(
    ctx: Any,
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    scales: Sequence[Tensor],
    shifts: Sequence[Tensor],
    eps: Sequence[float],
    statistics: tuple[Tensor, Tensor],
) -> None:
    """Keep on `ctx` what `gradients` needs."""
    ctx.dilations, ctx.eps = dilations, eps
    ctx.mark_non_differentiable(*statistics)
    ctx.save_for_backward(x, *statistics, *weights, *scales, *shifts)


def gradients(
    ctx: Any, grad_output: Tensor
) -> tuple[Tensor, Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    """The gradients by x, weights, scales and shifts; they can be differentiated where that is asked for."""
    x, mean, var, *parameters = ctx.saved_tensors
    count = len(ctx.dilations)
    weights, scales, shifts = (parameters[i * count : (i + 1) * count] for i in range(3))
    if torch.is_grad_enabled() or is_batched(grad_output):
        return _differentiable_gradients(ctx, grad_output, x, weights, scales, shifts)
    return torch.ops.unireplknet.dilated_reparam_backward(
        grad_output, x, weights, ctx.dilations, scales, mean, var, ctx.eps
    )


def _differentiable_gradients(ctx, grad_output, x, weights, scales, shifts):
    """Those of the plain form, for gradients of gradients and for batches of gradients."""
    count, create_graph = len(weights), torch.is_grad_enabled()
    inputs = [x.float(), *weights, *scales, *shifts]
    with without_autocast(x.device.type), torch.enable_grad():
        # By aliases, since one input may follow from another.
        inputs = [t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in inputs]
        y, _, _ = naive.dilated_reparam(
            inputs[0],
            inputs[1 : 1 + count],
            ctx.dilations,
            inputs[1 + count : 1 + 2 * count],
            inputs[1 + 2 * count :],
            ctx.eps,
        )
        grad_x, *others = torch.autograd.grad(
            y, inputs, grad_output.float(), create_graph=create_graph
        )
    return grad_x.to(x.dtype), *(others[i * count : (i + 1) * count] for i in range(3))


def _backward_of_lists(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple:
    grad_x, grad_weights, grad_scales, grad_shifts = gradients(ctx, grad_output)
    return grad_x, grad_weights, None, grad_scales, grad_shifts, None


def _autocast_kernel(x, weights, dilations, scales, shifts, eps) -> tuple[Tensor, Tensor, Tensor]:
    """Maps take the autocast dtype, as those of convolutions do; parameters stay float32."""
    with without_autocast('cpu'):
        x = x.to(torch.get_autocast_dtype('cpu'))
        return torch.ops.unireplknet.dilated_reparam(x, weights, dilations, scales, shifts, eps)


# FLOPs as PyTorch counts a convolution's: two a tap and position, padding included.


def _register_flop_formulas() -> None:
    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(torch.ops.unireplknet.dilated_reparam)(_flops_forward)
    register_flop_formula(torch.ops.unireplknet.dilated_reparam_backward)(_flops_backward)


def _flops_forward(x_shape, weight_shapes, *args, out_shape=None, **kwargs) -> int:
    batch, channels, height, width = x_shape
    taps = sum(shape[2] * shape[3] for shape in weight_shapes)
    return 2 * batch * channels * height * width * taps


def _flops_backward(
    grad_output_shape, x_shape, weight_shapes, *args, out_shape=None, **kwargs
) -> int:
    """Of both gradients, without the branches that are computed again."""
    return 2 * _flops_forward(x_shape, weight_shapes)
