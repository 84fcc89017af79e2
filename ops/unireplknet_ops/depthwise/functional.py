"""`depthwise_conv2d`: one function for the compiled operator and for `F.conv2d`.

What it does a call beyond the convolution is kept small, since maps of 7×7 take microseconds: checks
and the choice between the two are made once for each combination of shapes, dtypes and settings.
"""

import contextlib
import os

import torch
import torch.nn.functional as F
from torch import Tensor

from unireplknet_ops import library
from unireplknet_ops.convolution_rules import check_shapes, one_dilation, same_padding
from unireplknet_ops.depthwise.operators import cast_for_autocast, gradients, setup_context
from unireplknet_ops.dispatch import (
    FORCE_VARIABLE,
    IMPLEMENTATIONS,
    NATIVE,
    OP,
    PLAIN_TYPES,
    Passes,
    autocast_dtype,
    choices,
    choose,
    computing_dtype,
    demand_op,
    needs_gradient,
    problem_of,
    remember,
    unknown_implementation,
)
from unireplknet_ops.torch_internals import (
    below_autograd,
    is_any_autocast_enabled,
    is_exporting,
    is_tracing,
    is_transformed,
    tracing_paused,
    without_autocast,
)


def depthwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    dilation: int = 1,
    implementation: str = 'auto',
) -> Tensor:
    """Depthwise convolution of stride 1 with 'same' padding: zeros, dilation * (K - 1) / 2 a side.

    Under autocast it computes in the autocast dtype, as `F.conv2d` does. In a graph that leaves the
    process (`torch.export`, `torch.jit.trace`, ONNX) 'auto' is a plain convolution, which loads
    anywhere; ONNX gets one in any case.

    Args:
        x: (N, C, H, W), any strides. `F.conv2d` also takes (C, H, W).
        weight: (C, 1, Kh, Kw), odd sizes, dtype and device of x.
        bias: (C,) or None.
        dilation: of both axes; or a pair of equal numbers.
        implementation: 'native' is `F.conv2d`, 'op' the compiled operator: sizes up to 63, dilation up
            to 15 and above 1 only with sizes up to 9. 'auto' takes for each pass what was measured to be
            faster, and the operator for large kernels on CPUs where nothing was (`dispatch`), but
            `F.conv2d` for everything that the operator does not know: other dtypes and devices, tensor
            subclasses, `torch.func` transforms. The environment variable UNIREPLKNET_DWCONV=native|op
            takes the place of 'auto'.

    Returns:
        (N, C, H, W), dtype of x; channels_last if x or what it is a slice of is, else NCHW-contiguous.

    Raises:
        ArgumentError: shapes that do not fit each other, an even kernel size, a dilation below 1, an
            unknown implementation.
        OpUnavailableError: the operator was asked for and cannot run.
    """
    if type(dilation) is not int:
        dilation = one_dilation(dilation)
    if (
        torch.compiler.is_compiling()
        or type(x) not in PLAIN_TYPES
        or type(weight) not in PLAIN_TYPES
        or x.layout is not torch.strided
        or is_tracing()
        or is_transformed()
    ):
        return _run_unremembered(x, weight, bias, dilation, implementation)

    device = x.device
    needs_grad = needs_gradient(x, weight, bias)
    cast_dtype = autocast_dtype(device.type) if is_any_autocast_enabled() else None
    key = (
        x.shape,
        x.stride(),
        weight.shape,
        None if bias is None else bias.shape,
        x.dtype,
        cast_dtype,
        device,
        needs_grad,
        dilation,
        implementation,
        os.environ.get(FORCE_VARIABLE) if implementation == 'auto' else None,
        torch.get_num_threads(),
    )
    chosen = choices.get(key)
    if chosen is None:
        chosen = _check_and_choose(x, weight, bias, dilation, implementation)
        remember(key, chosen)
    if chosen == NATIVE or (chosen.forward == 'native' and not needs_grad):
        return F.conv2d(x, weight, bias, **_native_arguments(weight, dilation))
    if cast_dtype is None:
        return _run(x, weight, bias, dilation, needs_grad, chosen)
    with without_autocast(device.type):
        x, weight, bias = cast_for_autocast(cast_dtype, x, weight, bias)
        return _run(x, weight, bias, dilation, needs_grad, chosen)


def _run_unremembered(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, implementation: str
) -> Tensor:
    """For graphs that are being recorded and for tensors that are more than data."""
    arguments = (x, weight, bias, dilation, implementation)
    if torch.jit.is_tracing():
        with tracing_paused():
            chosen = _check_and_choose(*arguments, is_recorded=True)
            native_arguments = _native_arguments(weight, dilation)
    else:
        chosen = _check_and_choose(*arguments, is_recorded=is_exporting())
        native_arguments = _native_arguments(weight, dilation)
    if chosen == OP or (chosen.forward == 'op' and not needs_gradient(x, weight, bias)):
        return torch.ops.unireplknet.depthwise_conv2d(x, weight, bias, dilation)
    if chosen == NATIVE or not needs_gradient(x, weight, bias):
        return F.conv2d(x, weight, bias, **native_arguments)
    dtype = autocast_dtype(x.device.type)
    if dtype is not None:
        x, weight, bias = cast_for_autocast(dtype, x, weight, bias)
    return _Convolution.apply(x, weight, bias, dilation, chosen)


def _check_and_choose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: int,
    implementation: str,
    is_recorded: bool = False,
) -> Passes:
    """What runs each pass of a call; raises as `depthwise_conv2d` does."""
    if implementation not in IMPLEMENTATIONS:
        raise unknown_implementation(implementation)
    check_shapes(x, weight, bias, dilation)
    if implementation == 'native' or torch.onnx.is_in_onnx_export():
        return NATIVE
    if implementation == 'op':
        dtype, kernel_size = computing_dtype(x), weight.shape[2:]
        demand_op("implementation='op'", x.device.type, dtype, kernel_size, dilation, (x, weight))
        return OP
    problem = problem_of(x, weight, bias, dilation)
    choice = choose(problem, (x, weight), is_recorded=is_recorded)
    if not torch.compiler.is_compiling():
        library.logger.debug(
            'Depthwise convolution %s: %s, since %s', problem, choice.passes, choice.reason
        )
    return choice.passes


def _native_arguments(weight: Tensor, dilation: int) -> dict:
    channels, _, *kernel_size = weight.shape
    padding = same_padding(kernel_size, dilation)
    return dict(padding=padding, dilation=dilation, groups=channels)


class _Convolution(torch.autograd.Function):
    """Each pass on what was chosen for it, without a detour by the dispatcher to Python: half the time."""

    @staticmethod
    def forward(ctx, x, weight, bias, dilation, passes):
        setup_context(ctx, (x, weight, bias, dilation), None)
        ctx.passes = passes
        with _below_autograd():
            return _forward(x, weight, bias, dilation, passes)

    @staticmethod
    def backward(ctx, grad_output):
        # Here, since checkpointing computes what was saved again, for which it needs autograd.
        saved = ctx.saved_tensors
        with contextlib.nullcontext() if torch.is_grad_enabled() else _below_autograd():
            return *gradients(ctx, saved, grad_output, ctx.passes), None


def _below_autograd() -> contextlib.AbstractContextManager:
    """As `below_autograd`; nothing in a graph, where autograd is not there any more."""
    return contextlib.nullcontext() if torch.compiler.is_compiling() else below_autograd()


def _run(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: int,
    needs_grad: bool,
    passes: Passes,
) -> Tensor:
    if needs_grad:
        return _Convolution.apply(x, weight, bias, dilation, passes)
    with below_autograd():
        return torch.ops.unireplknet.depthwise_conv2d(x, weight, bias, dilation)


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, passes: Passes
) -> Tensor:
    if passes.forward == 'native':
        return F.conv2d(x, weight, bias, **_native_arguments(weight, dilation))
    return torch.ops.unireplknet.depthwise_conv2d(x, weight, bias, dilation)
