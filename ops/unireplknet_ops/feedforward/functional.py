"""`feed_forward`: one function for the compiled operator and for PyTorch's own."""

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from unireplknet_ops import library
from unireplknet_ops.convolution_rules import is_channels_last
from unireplknet_ops.dispatch import (
    IMPLEMENTATIONS,
    PLAIN_TYPES,
    computing_dtype,
    unknown_implementation,
)
from unireplknet_ops.errors import ArgumentError, OpUnavailableError
from unireplknet_ops.feedforward.operators import DTYPES, check_shapes
from unireplknet_ops.torch_internals import (
    constant_in_graphs,
    is_fake,
    is_transformed,
)

FORCE_VARIABLE = 'UNIREPLKNET_FEED_FORWARD'
# From a sweep with AVX-512-BF16: below, packing the weights costs more than it saves.
MINIMUM_ROWS = 49  # N * H * W
MINIMUM_CHANNELS = 16
INSTRUCTION_SETS = ('avx2', 'avx512', 'avx512_bf16')


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
    if implementation not in IMPLEMENTATIONS:
        raise unknown_implementation(implementation)
    if not torch.jit.is_tracing():  # which would record the sizes
        check_shapes(
            x, input_scale, weight1, bias1, gamma, beta, weight2, output_scale, bias2, residual
        )
    tensors = (input_scale, weight1, bias1, gamma, beta, weight2, output_scale, bias2, residual)
    origin = f'implementation={implementation!r}'
    if implementation == 'auto' and (forced := forced_implementation()):
        implementation, origin = forced, f'{FORCE_VARIABLE}={forced}'
    if implementation == 'op' and (obstacle := _obstacle(x, tensors)) is not None:
        raise OpUnavailableError(
            f"{origin}, but the op cannot run here: {obstacle}. Choose native to run PyTorch's operators"
        )
    if implementation == 'op' or (implementation == 'auto' and _is_faster(x, tensors)):
        return _run_op(x, *tensors)
    return _run_native(x, *tensors)


def feed_forward_takes_op(x: Tensor, *tensors: Tensor | None) -> bool:
    """Whether `feed_forward` of x and these other tensors, in any order, runs the compiled operator.

    It does where a sweep found it faster: on x86 CPUs with AVX2, from 16 channels and 49 positions in
    all images on, where no tensor needs a gradient. Graphs that leave the process (`torch.export`,
    `torch.jit.trace`, ONNX) are left to PyTorch's operators, as are tensor subclasses and `torch.func`.

    Raises:
        ArgumentError: UNIREPLKNET_FEED_FORWARD is neither empty, native nor op.
    """
    forced = forced_implementation()
    if forced is not None:
        return forced == 'op' and _obstacle(x, tensors) is None
    return _is_faster(x, tensors)


@constant_in_graphs
def forced_implementation() -> str | None:
    """What UNIREPLKNET_FEED_FORWARD forces, None if it is not set; ArgumentError if it is not known."""
    forced = os.environ.get(FORCE_VARIABLE) or None
    if forced not in (None, 'native', 'op'):
        raise ArgumentError(f'{FORCE_VARIABLE}={forced} is not known: choose native or op')
    return forced


def _is_faster(x: Tensor, tensors: tuple[Tensor | None, ...]) -> bool:
    if (
        x.device.type != 'cpu'
        or _is_left_to_native(x, tensors)
        or _obstacle(x, tensors) is not None
    ):
        return False
    if x.dim() != 4 or _instruction_set() not in INSTRUCTION_SETS:
        return False
    batch, channels, height, width = x.shape
    return channels >= MINIMUM_CHANNELS and batch * height * width >= MINIMUM_ROWS


def _obstacle(x: Tensor, tensors: tuple[Tensor | None, ...]) -> str | None:
    """Why the operator cannot run, None if it can."""
    if x.device.type not in ('cpu', 'meta'):
        return f'there is no kernel for {x.device.type} tensors, only for cpu'
    if (missing := _missing_library()) is not None:
        return missing
    dtype = computing_dtype(x)
    if dtype not in DTYPES:
        return f'it does not compute in {dtype}'
    given = [x, *(tensor for tensor in tensors if tensor is not None)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return 'it has no derivative, and a tensor requires one'
    if any(tensor.layout is not torch.strided for tensor in given):
        return 'a tensor is not strided'
    if is_transformed():
        return 'torch.func and forward-mode differentiation do not know it'
    return None


def _is_left_to_native(x: Tensor, tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether 'auto' leaves graphs and tensors of this kind to PyTorch."""
    if (
        torch.compiler._is_exporting_flag
        or torch.jit.is_tracing()
        or torch.onnx.is_in_onnx_export()
    ):
        return True
    return any(
        tensor is not None and type(tensor) not in PLAIN_TYPES and not is_fake(tensor)
        for tensor in (x, *tensors)
    )


@constant_in_graphs
def _missing_library() -> str | None:
    return library.missing('cpu')


@constant_in_graphs
def _instruction_set() -> str:
    return torch.ops.unireplknet.cpu_isa()


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
    """The operator, which wants maps and weights of one dtype and vectors of float32."""
    dtype = computing_dtype(x)
    input_scale, bias1, gamma, beta, output_scale, bias2 = (
        vector if vector is None else vector.float()
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
    hidden = F.gelu(F.linear(x.permute(0, 2, 3, 1).contiguous(), weight1, bias1))
    norm_dtype = torch.float32 if hidden.dtype in (torch.bfloat16, torch.float16) else hidden.dtype
    norm = torch.linalg.vector_norm(hidden, dim=(1, 2), keepdim=True, dtype=norm_dtype)
    response = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
    hidden = (gamma * response + 1).to(hidden.dtype) * hidden
    if beta is not None:
        hidden = hidden + beta.to(hidden.dtype)
    if output_scale is None:
        output = F.linear(hidden, weight2, bias2)
    else:
        output = F.linear(hidden, weight2) * output_scale
        output = output if bias2 is None else output + bias2
    output = output.permute(0, 3, 1, 2).to(hidden.dtype)
    if not is_channels_last(x):
        output = output.contiguous()
    return output if residual is None else output + residual
