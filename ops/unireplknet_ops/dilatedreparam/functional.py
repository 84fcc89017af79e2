"""`dilated_reparam`: one function for the compiled operator and for PyTorch's own."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unireplknet_ops import choice, dispatch
from unireplknet_ops.depthwise import depthwise_conv2d
from unireplknet_ops.dilatedreparam.operators import check_shapes, gradients, save
from unireplknet_ops.dispatch import (
    IMPLEMENTATIONS,
    autocast_dtype,
    computing_dtype,
    unknown_implementation,
)
from unireplknet_ops.errors import OpUnavailableError
from unireplknet_ops.torch_internals import below_autograd, without_autocast

FORCE_VARIABLE = 'UNIREPLKNET_DILATED_REPARAM'
# A vector holds so many channels. From a sweep: with at least three quarters of the lanes in use the operator
# is faster, with half of them it takes up to 1.8 times as long on large maps and in bfloat16.
LANES = 16
MINIMUM_SHARE = 0.75


def dilated_reparam(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    scales: Sequence[Tensor],
    shifts: Sequence[Tensor],
    eps: Sequence[float],
    *,
    implementation: str = 'auto',
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum of depthwise convolutions with a BatchNorm in training each (arXiv 2410.08049, Fig. 6).

    `naive.py` has the formulas. Running statistics are the caller's: mean and var are what they take. The
    operator keeps x alone for backward. Under autocast it computes in float32 from an x in the autocast
    dtype.

    Args:
        x: (N, C, H, W), any strides, more than one value a channel.
        weights: (C, 1, k, k) each, k odd, one a branch; the largest first is fastest.
        dilations: of the branches' convolutions, which are padded to the size of x.
        scales, shifts: (C,) each, weight and bias of the branches' BatchNorms.
        eps: of the branches' BatchNorms.
        implementation: 'native' runs PyTorch's operators, 'op' the compiled operator: on the CPU, in
            float32, bfloat16 and float16. 'auto' takes the operator where `dilated_reparam_takes_op`
            says so. The environment variable UNIREPLKNET_DILATED_REPARAM=native|op takes the place of
            'auto'.

    Returns:
        (N, C, H, W), in the memory format of x; mean and biased variance of every branch's convolution,
        (B, C) each in float32 (float64 for float64), without derivatives.

    Raises:
        ArgumentError: shapes that do not fit each other, an unknown implementation.
        OpUnavailableError: the operator was asked for and cannot run.
    """
    if implementation not in IMPLEMENTATIONS:
        raise unknown_implementation(implementation)
    if not torch.jit.is_tracing():  # which would record the sizes
        check_shapes(x, weights, dilations, scales, shifts, eps)
    origin = f'implementation={implementation!r}'
    if implementation == 'auto' and (forced := dispatch.forced_by(FORCE_VARIABLE)):
        implementation, origin = forced, f'{FORCE_VARIABLE}={forced}'
    vectors = (*scales, *shifts)
    if implementation == 'op' and (obstacle := _obstacle(x, weights, vectors)) is not None:
        raise OpUnavailableError(
            f"{origin}, but the op cannot run here: {obstacle}. Choose native to run PyTorch's operators"
        )
    if implementation == 'op' or (implementation == 'auto' and _is_faster(x, weights, vectors)):
        return _run_op(x, weights, dilations, scales, shifts, eps)
    return _run_native(x, weights, dilations, scales, shifts, eps)


def dilated_reparam_takes_op(
    x: Tensor, weights: Sequence[Tensor], vectors: Sequence[Tensor]
) -> bool:
    """Whether `dilated_reparam` of x, weights and these scales and shifts runs the compiled operator.

    It does where a sweep found it faster: on x86 CPUs with AVX2, where channels fill at least three quarters
    of groups of 16, but for large maps in bfloat16.

    Graphs that leave the process (`torch.export`, `torch.jit.trace`, ONNX) are left to PyTorch's operators,
    as are tensor subclasses, `torch.func` and every call while UNIREPLKNET_DWCONV=native keeps the
    depthwise convolutions there.

    Raises:
        ArgumentError: UNIREPLKNET_DILATED_REPARAM is neither empty, native nor op.
    """
    forced = dispatch.forced_by(FORCE_VARIABLE)
    if forced is not None:
        return forced == 'op' and _obstacle(x, weights, vectors) is None
    return _is_faster(x, weights, vectors)


def _is_faster(x: Tensor, weights: Sequence[Tensor], vectors: Sequence[Tensor]) -> bool:
    return (
        not choice.is_left_to_native(x, (*weights, *vectors))
        and dispatch.forced_implementation() != 'native'
        and _obstacle(x, weights, vectors) is None
        and x.shape[1] >= MINIMUM_SHARE * LANES * -(-x.shape[1] // LANES)
        and not _pairs_are_faster(x, weights)
    )


def _pairs_are_faster(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether single convolutions gain more from AVX-512-BF16, which multiplies pairs, than the op saves.

    In a sweep that was so on large maps alone.
    """
    if choice.instruction_set() != 'avx512_bf16' or computing_dtype(x) != torch.bfloat16:
        return False
    batch, _, height, width = x.shape
    largest = max(weight.shape[-1] for weight in weights)
    return 9 <= largest <= 17 and height * width >= 3136 and batch * height * width > 8192


def _obstacle(x: Tensor, weights: Sequence[Tensor], vectors: Sequence[Tensor]) -> str | None:
    """Why the operator cannot run, None if it can."""
    dtype = computing_dtype(x)
    if (reason := choice.obstacle(x, (*weights, *vectors), dtype)) is not None:
        return reason
    if autocast_dtype(x.device.type) is None and any(w.dtype != dtype for w in weights):
        return f'x is {dtype}, but a weight is not'
    if any(vector.dtype not in (dtype, torch.float32) for vector in vectors):
        return f'x is {dtype}, but a scale or a shift is neither that nor float32'
    if x.dim() != 4 or x.numel() <= x.shape[1]:
        return f'x must be (N, C, H, W) with more than one value a channel, got {tuple(x.shape)}'
    return None


class _Block(torch.autograd.Function):
    """The operator with its derivative, without a detour by the dispatcher to Python."""

    @staticmethod
    def forward(ctx, x, dilations, eps, *parameters):
        count = len(dilations)
        weights, scales, shifts = (parameters[i * count : (i + 1) * count] for i in range(3))
        with below_autograd():
            y, *statistics = torch.ops.unireplknet.dilated_reparam(
                x, weights, dilations, scales, shifts, eps
            )
        save(ctx, x, weights, dilations, scales, shifts, eps, statistics)
        return y, *statistics

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple:
        grad_x, grad_weights, grad_scales, grad_shifts = gradients(ctx, grad_output)
        return grad_x, None, None, *grad_weights, *grad_scales, *grad_shifts


def _run_op(x, weights, dilations, scales, shifts, eps) -> tuple[Tensor, Tensor, Tensor]:
    """The operator, which wants parameters of float32."""
    x = x.to(computing_dtype(x))
    weights, scales, shifts = (
        [t.float() for t in tensors] for tensors in (weights, scales, shifts)
    )
    if torch.compiler.is_compiling():
        return torch.ops.unireplknet.dilated_reparam(x, weights, dilations, scales, shifts, eps)
    with without_autocast(x.device.type):
        return _Block.apply(x, dilations, eps, *weights, *scales, *shifts)


def _run_native(x, weights, dilations, scales, shifts, eps) -> tuple[Tensor, Tensor, Tensor]:
    """PyTorch's operators, as modules of the same layers would run them."""
    y, means, variances = None, [], []
    for weight, dilation, scale, shift, e in zip(
        weights, dilations, scales, shifts, eps, strict=True
    ):
        z = depthwise_conv2d(x, weight, dilation=dilation)
        normed = F.batch_norm(z, None, None, scale, shift, True, 0.0, e)
        y = normed if y is None else y + normed
        dtype = torch.float64 if z.dtype == torch.float64 else torch.float32
        var, mean = torch.var_mean(z.detach().to(dtype), (0, 2, 3), correction=0)
        means.append(mean)
        variances.append(var)
    return y, torch.stack(means), torch.stack(variances)
