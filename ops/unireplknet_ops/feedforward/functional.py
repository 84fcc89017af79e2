"""`feed_forward`, `squeeze_excitation`, `gelu_grn`: functions for the operators and for PyTorch's own."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unireplknet_ops import choice
from unireplknet_ops.convolution_rules import is_channels_last
from unireplknet_ops.dispatch import (
    IMPLEMENTATIONS,
    computing_dtype,
    forced_by,
    unknown_implementation,
)
from unireplknet_ops.errors import OpUnavailableError
from unireplknet_ops.feedforward import operators
from unireplknet_ops.feedforward.operators import (
    check_rows,
    check_shapes,
    check_squeezing,
    native_gelu_grn,
)
from unireplknet_ops.torch_internals import below_autograd, has_float16_arithmetic

FORCE_VARIABLE = 'UNIREPLKNET_FEED_FORWARD'
# From sweeps with AVX-512-BF16. Below, packing the weights costs more than it saves.
MINIMUM_ROWS = 49  # N * H * W
MINIMUM_CHANNELS = 16
# Weights of more numbers stay in no cache (of 32 MiB there), and are read again for every image. With 1536
# and 2048 channels the operator took 1.0 to 1.8 times as long as PyTorch in bfloat16, in float32 up to 1.3
# times on one image of 7×7 or 10×10 and 0.7 to 0.96 times from 392 rows on; with 1280 at most 0.9 times.
LARGEST_WEIGHT = 2**23
MINIMUM_ROWS_OF_LARGE = 392
# Of `squeeze_excitation`, which reads its weights for every image: with 1536 channels and eight images it
# took 0.9 to 1.2 times as long as PyTorch, with 640 at most 0.9 times.
LARGEST_SQUEEZING_WEIGHT = 2**19
# Numbers in maps of one position, where GRN's norm is an absolute value: with so many `gelu_grn` took 1.5 to
# 3.1 times as long as PyTorch forward, and 1.1 to 2.0 times in a step; with fewer a step took half as long.
LEAST_OF_ONE_POSITION = 2**13


def feed_forward(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    gamma: Tensor,
    beta: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    *,
    input_scale: Tensor | None = None,
    output_scale: Tensor | None = None,
    residual: Tensor | None = None,
    implementation: str = 'auto',
) -> Tensor:
    """Linear -> GELU -> Global Response Normalization -> Linear on a map (arXiv 2410.08049, Fig. 3).

    With the scale of its input (Squeeze-and-Excitation), the scale of its output (BatchNorm's in evaluation,
    layer scale) and the residual, all in two matrix products; `naive.py` has the formulas. Under autocast
    it computes in the autocast dtype.

    Args:
        x: (N, C, H, W), any strides.
        weight1, bias1: (hidden, C) and (hidden,) of the first linear layer.
        gamma, beta: (hidden,), of GRN; its norm is taken over the positions of each image, in float32 for
            16-bit dtypes, and divided by its mean over channels + 1e-6.
        weight2, bias2: (C, hidden) and (C,) of the second linear layer.
        input_scale: (N, C), times x.
        output_scale: (C,), times the second linear layer's product, before bias2.
        residual: (N, C, H, W), added to the output.
        implementation: 'native' runs PyTorch's operators, 'op' the compiled operator: on the CPU, without
            derivatives, in float32, bfloat16 and float16. 'auto' takes the operator where
            `feed_forward_takes_op` says so. The environment variable UNIREPLKNET_FEED_FORWARD=native|op
            takes the place of 'auto'.

    Returns:
        (N, C, H, W), in the memory format of x.

    Raises:
        ArgumentError: shapes that do not fit each other, an unknown implementation.
        OpUnavailableError: the operator was asked for and cannot run.
    """
    if not torch.jit.is_tracing():  # which would record the sizes
        check_shapes(
            x, input_scale, weight1, bias1, gamma, beta, weight2, output_scale, bias2, residual
        )
    tensors = (input_scale, weight1, bias1, gamma, beta, weight2, output_scale, bias2, residual)
    implementation = _resolve(implementation, lambda: _obstacle(x, tensors))
    if implementation == 'op' or (implementation == 'auto' and _is_faster(x, tensors)):
        return _run_op(x, *tensors)
    return _run_native(x, *tensors)


def feed_forward_takes_op(x: Tensor, *tensors: Tensor | None) -> bool:
    """Whether `feed_forward` of x and these other tensors, in any order, runs the compiled operator.

    It does where a sweep found it faster: on x86 CPUs with AVX2, from 16 channels and 49 positions in
    all images on, several an image, where no tensor needs a gradient; with weights of more than 2**23
    numbers in float32 from 392 positions on. Graphs that leave the process (`torch.export`,
    `torch.jit.trace`, ONNX) are left to PyTorch's operators, as are tensor subclasses and `torch.func`.

    Raises:
        ArgumentError: UNIREPLKNET_FEED_FORWARD is neither empty, native nor op.
    """
    forced = forced_by(FORCE_VARIABLE)
    if forced is not None:
        return forced == 'op' and _obstacle(x, tensors) is None
    return _is_faster(x, tensors)


def _is_faster(x: Tensor, tensors: tuple[Tensor | None, ...]) -> bool:
    if choice.is_left_to_native(x, tensors) or _obstacle(x, tensors) is not None or x.dim() != 4:
        return False
    batch, channels, height, width = x.shape
    if x.dtype == torch.float16 and not has_float16_arithmetic():
        return True  # PyTorch's products take several times as long
    rows = batch * height * width
    if height * width == 1:  # a panel of rows belongs to one image: 1 to 6 times as long as PyTorch
        return False
    matrices = [tensor.numel() for tensor in tensors if tensor is not None and tensor.dim() == 2]
    if max(matrices, default=0) > LARGEST_WEIGHT:
        return computing_dtype(x) == torch.float32 and rows >= MINIMUM_ROWS_OF_LARGE
    return channels >= MINIMUM_CHANNELS and rows >= MINIMUM_ROWS


def squeeze_excitation(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    *,
    implementation: str = 'auto',
) -> Tensor:
    """The factor of each channel in Squeeze-and-Excitation (arXiv 1709.01507): `feed_forward`'s input_scale.

    sigmoid(W2 relu(W1 m + b1) + b2) with m the means of the channels of an image. Under autocast it
    computes in the autocast dtype.

    Args:
        x: (N, C, H, W), any strides.
        weight1, bias1: (squeezed, C) and (squeezed,) of the first linear layer.
        weight2, bias2: (C, squeezed) and (C,) of the second.
        implementation: as of `feed_forward`. 'auto' takes the operator for channels_last maps on x86 CPUs
            with AVX2, where no tensor needs a gradient and a weight has no more than 2**19 numbers.

    Returns:
        (N, C): from the operator in float32, which 16 bits are never rounded to on the way; from PyTorch's
        operators in the dtype that modules would give.

    Raises:
        ArgumentError: shapes that do not fit each other, an unknown implementation.
        OpUnavailableError: the operator was asked for and cannot run.
    """
    tensors = (weight1, bias1, weight2, bias2)
    if not torch.jit.is_tracing():
        check_squeezing(x, *tensors)
    implementation = _resolve(implementation, lambda: _obstacle(x, tensors))
    if implementation == 'op' or (implementation == 'auto' and _is_squeezed_faster(x, tensors)):
        dtype = computing_dtype(x)
        return torch.ops.unireplknet.squeeze_excitation(
            x.to(dtype), *(None if tensor is None else tensor.to(dtype) for tensor in tensors)
        )
    means = F.adaptive_avg_pool2d(x, 1).flatten(1)
    # Matrix products cost half of what convolutions of one position do.
    return torch.sigmoid(F.linear(F.relu(F.linear(means, weight1, bias1)), weight2, bias2))


def _is_squeezed_faster(x: Tensor, tensors: tuple[Tensor | None, ...]) -> bool:
    return (
        not choice.is_left_to_native(x, tensors)
        and _obstacle(x, tensors) is None
        and is_channels_last(x)
        and tensors[0].numel() <= LARGEST_SQUEEZING_WEIGHT
    )


def _obstacle(x: Tensor, tensors: tuple[Tensor | None, ...]) -> str | None:
    """Why the operator cannot run, None if it can."""
    if torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (x, *tensors)
    ):
        return 'it has no derivative, and a tensor requires one'
    return choice.obstacle(x, tensors, computing_dtype(x))


def gelu_grn(
    x: Tensor,
    bias: Tensor | None,
    gamma: Tensor,
    beta: Tensor | None,
    *,
    implementation: str = 'auto',
) -> Tensor:
    """Bias -> GELU -> Global Response Normalization: what stands between `feed_forward`'s linear layers.

    For training: the operator has a derivative, and keeps x and the norms for it where modules keep x and
    GELU's output. The formulas are in `naive.py`.

    Args:
        x: (N, H, W, C) or (N, positions, C), the first linear layer's product.
        bias: (C,), of that layer.
        gamma, beta: (C,), of GRN; its norm is taken over the positions of each image, in float32 for
            16-bit dtypes, and divided by its mean over channels + 1e-6.
        implementation: 'native' runs PyTorch's operators, 'op' the compiled operator: on the CPU, in
            float32, bfloat16 and float16. 'auto' takes the operator where `gelu_grn_takes_op` says so.
            The environment variable UNIREPLKNET_FEED_FORWARD=native|op takes the place of 'auto'.

    Returns:
        As x, contiguous.

    Raises:
        ArgumentError: shapes that do not fit each other, an unknown implementation.
        OpUnavailableError: the operator was asked for and cannot run.
    """
    if not torch.jit.is_tracing():
        check_rows(x, bias, gamma, beta)
    tensors = (bias, gamma, beta)
    implementation = _resolve(implementation, lambda: choice.obstacle(x, tensors, x.dtype))
    if implementation == 'native' or (
        implementation == 'auto' and not _is_middle_faster(x, tensors)
    ):
        return native_gelu_grn(x, bias, gamma, beta)
    vectors = (vector if vector is None else vector.float() for vector in tensors)
    if torch.compiler.is_compiling():
        return torch.ops.unireplknet.gelu_grn(x, *vectors)[0]
    return _GeluGrn.apply(x, *vectors)


def gelu_grn_takes_op(x: Tensor, *tensors: Tensor | None) -> bool:
    """Whether `gelu_grn` of x and these other tensors, in any order, runs the compiled operator.

    It does where a sweep found it faster, on x86 CPUs with AVX2, but for 2**13 numbers and more of one
    position an image; not where `feed_forward_takes_op` names other graphs and tensors.

    Raises:
        ArgumentError: UNIREPLKNET_FEED_FORWARD is neither empty, native nor op.
    """
    forced = forced_by(FORCE_VARIABLE)
    if forced is not None:
        return forced == 'op' and choice.obstacle(x, tensors, x.dtype) is None
    return _is_middle_faster(x, tensors)


def _is_middle_faster(x: Tensor, tensors: tuple[Tensor | None, ...]) -> bool:
    if choice.is_left_to_native(x, tensors) or choice.obstacle(x, tensors, x.dtype) is not None:
        return False
    return any(size > 1 for size in x.shape[1:-1]) or x.numel() < LEAST_OF_ONE_POSITION


def _resolve(implementation: str, obstacle: Callable[[], str | None]) -> str:
    """What was asked for, by argument or variable; 'auto' if nobody has.

    Raises:
        ArgumentError: it is not known.
        OpUnavailableError: the operator was asked for, and `obstacle` says why it cannot run.
    """
    if implementation not in IMPLEMENTATIONS:
        raise unknown_implementation(implementation)
    origin = f'implementation={implementation!r}'
    if implementation == 'auto' and (forced := forced_by(FORCE_VARIABLE)):
        implementation, origin = forced, f'{FORCE_VARIABLE}={forced}'
    if implementation == 'op' and (reason := obstacle()) is not None:
        raise OpUnavailableError(
            f"{origin}, but the op cannot run here: {reason}. Choose native to run PyTorch's operators"
        )
    return implementation


class _GeluGrn(torch.autograd.Function):
    """The operator with its derivative, without a detour by the dispatcher to Python."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor | None):
        with below_autograd():
            output, norm = torch.ops.unireplknet.gelu_grn(x, bias, gamma, beta)
        ctx.save_for_backward(x, bias, gamma, beta, norm)
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        return operators.backward_of_gelu_grn(ctx, grad_output)


def _run_op(
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
) -> Tensor:
    """The operator, which wants maps and weights of one dtype and vectors of that or float32."""
    dtype = computing_dtype(x)
    input_scale, bias1, gamma, beta, output_scale, bias2 = (
        vector if vector is None or vector.dtype == dtype else vector.float()
        for vector in (input_scale, bias1, gamma, beta, output_scale, bias2)
    )
    is_added_here = residual is not None and residual.dtype == dtype
    output = torch.ops.unireplknet.feed_forward(
        x.to(dtype),
        input_scale,
        weight1.to(dtype),
        bias1,
        gamma,
        beta,
        weight2.to(dtype),
        output_scale,
        bias2,
        residual if is_added_here else None,
    )
    return output if residual is None or is_added_here else output + residual


def _run_native(
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
) -> Tensor:
    """PyTorch's operators, each in the dtype that modules of the same layers would run it in."""
    if input_scale is not None:
        x = x * input_scale[:, :, None, None]
    hidden = F.linear(x.permute(0, 2, 3, 1).contiguous(), weight1, bias1)
    hidden = native_gelu_grn(hidden, None, gamma, beta)
    if output_scale is None:
        output = F.linear(hidden, weight2, bias2)
    else:
        output = F.linear(hidden, weight2) * output_scale
        output = output if bias2 is None else output + bias2
    output = output.permute(0, 3, 1, 2).to(hidden.dtype)
    if not is_channels_last(x):
        output = output.contiguous()
    return output if residual is None else output + residual
