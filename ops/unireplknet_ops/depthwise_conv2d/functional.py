"""`depthwise_conv2d`: one function for the compiled operator and for `F.conv2d`.

What it does a call beyond the convolution is kept small, since maps of 7×7 take microseconds: checks
and the choice between the two are made once for each combination of shapes, dtypes and settings.
"""

import contextlib
import os
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

from unireplknet_ops import library
from unireplknet_ops.depthwise_conv2d.operators import (
    AUTOCAST_KEYS,
    backward,
    cast_for_autocast,
    check_shapes,
    setup_context,
)
from unireplknet_ops.dispatch import (
    FORCE_VARIABLE,
    autocast_dtype,
    caches,
    choose_implementation,
    computing_dtype,
    forced_implementation,
    obstacle_to_op,
)
from unireplknet_ops.tracing import constant_in_graphs

IMPLEMENTATIONS = ('auto', 'native', 'op')

_PLAIN_TYPES = {Tensor, nn.Parameter}
_MAXIMUM_CHOICES = 4096  # a training on images of all sizes starts over then
# Everything that a choice depends on -> whether the operator runs.
_choices: dict[tuple, bool] = {}
caches.append(_choices)


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
            to 15 and above 1 only with sizes up to 9. 'auto' takes the operator where it was measured
            to be faster (`choose_implementation`), and `F.conv2d` for everything that the operator does
            not know: other dtypes and devices, tensor subclasses, `torch.func` transforms. The
            environment variable UNIREPLKNET_DWCONV=native|op takes the place of 'auto'.

    Returns:
        (N, C, H, W), dtype of x; channels_last if x or what it is a slice of is, else NCHW-contiguous.

    Raises:
        ValueError: shapes that do not fit each other, an even kernel size, a dilation below 1, an
            unknown implementation.
        RuntimeError: the operator was asked for and cannot run.
    """
    if type(dilation) is not int:
        dilation = _one_dilation(dilation)
    if (
        torch.compiler.is_compiling()
        or type(x) not in _PLAIN_TYPES
        or type(weight) not in _PLAIN_TYPES
        or x.layout is not torch.strided
        or torch._C._is_tracing()
        or _is_transformed()
    ):
        return _run_uncached(x, weight, bias, dilation, implementation)

    device = x.device
    needs_grad = _needs_grad(x, weight, bias)
    cast_dtype = autocast_dtype(device.type) if torch._C._is_any_autocast_enabled() else None
    key = (
        x.shape,
        weight.shape,
        None if bias is None else bias.shape,
        x.dtype,
        cast_dtype,
        device,
        x.is_contiguous(),
        x.is_contiguous(memory_format=torch.channels_last),
        needs_grad,
        dilation,
        implementation,
        os.environ.get(FORCE_VARIABLE) if implementation == 'auto' else None,
        torch.get_num_threads(),
    )
    takes_op = _choices.get(key)
    if takes_op is None:
        if len(_choices) >= _MAXIMUM_CHOICES:
            _choices.clear()
        takes_op = _takes_op(x, weight, bias, dilation, implementation)
        _choices[key] = takes_op
    if not takes_op:
        return F.conv2d(x, weight, bias, **_native_arguments(weight, dilation))
    if cast_dtype is None:
        return _run_op(x, weight, bias, dilation, needs_grad)
    with torch._C._ExcludeDispatchKeyGuard(AUTOCAST_KEYS):
        x, weight, bias = cast_for_autocast(cast_dtype, x, weight, bias)
        return _run_op(x, weight, bias, dilation, needs_grad)


def _one_dilation(dilation) -> int:
    """The number in a pair of equal ones, which `F.conv2d` takes as well."""
    pair = tuple(dilation) if isinstance(dilation, (tuple, list)) else (dilation, dilation)
    is_whole = all(isinstance(number, (int, torch.SymInt)) for number in pair)
    if len(pair) != 2 or not is_whole or pair[0] != pair[1]:
        raise ValueError(f'dilation must be one whole number for both axes, got {dilation!r}')
    return pair[0]


def _run_uncached(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, implementation: str
) -> Tensor:
    """For graphs that are being recorded and for tensors that are more than data."""
    if torch.jit.is_tracing():
        with _sizes_as_numbers():
            takes_op = _takes_op(x, weight, bias, dilation, implementation)
            native_arguments = _native_arguments(weight, dilation)
    else:
        takes_op = _takes_op(x, weight, bias, dilation, implementation)
        native_arguments = _native_arguments(weight, dilation)
    if takes_op:
        return torch.ops.unireplknet.depthwise_conv2d(x, weight, bias, dilation)
    return F.conv2d(x, weight, bias, **native_arguments)


@contextlib.contextmanager
def _sizes_as_numbers() -> Iterator[None]:
    """Within it, torch.jit.trace records nothing: sizes are numbers, the graph's constants."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)


@constant_in_graphs
def _is_transformed() -> bool:
    """Whether torch.func or forward-mode differentiation see more in a tensor than its data."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _native_arguments(weight: Tensor, dilation: int) -> dict:
    channels, _, kernel_height, kernel_width = weight.shape
    padding = (dilation * (kernel_height - 1) // 2, dilation * (kernel_width - 1) // 2)
    return dict(padding=padding, dilation=dilation, groups=channels)


class _Convolution(torch.autograd.Function):
    """The operator with its derivative, without a detour by the dispatcher to Python: half the time."""

    @staticmethod
    def forward(ctx, x, weight, bias, dilation):
        setup_context(ctx, (x, weight, bias, dilation), None)
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.unireplknet.depthwise_conv2d(x, weight, bias, dilation)

    @staticmethod
    def backward(ctx, grad_output):
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return backward(ctx, grad_output)
        with torch._C._AutoDispatchBelowAutograd():
            return backward(ctx, grad_output)


def _run_op(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, needs_grad: bool
) -> Tensor:
    if needs_grad:
        return _Convolution.apply(x, weight, bias, dilation)
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.unireplknet.depthwise_conv2d(x, weight, bias, dilation)


def _takes_op(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, implementation: str
) -> bool:
    """Check the arguments and choose.

    Raises:
        ValueError, RuntimeError: as `depthwise_conv2d`.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f'implementation={implementation!r} is not known: choose one of '
            f'{", ".join(IMPLEMENTATIONS)}'
        )
    check_shapes(x, weight, bias, dilation)
    origin = f'implementation={implementation!r}'
    if implementation == 'auto' and (forced := forced_implementation()):
        implementation, origin = forced, f'{FORCE_VARIABLE}={forced}'
    if implementation == 'native' or torch.onnx.is_in_onnx_export():
        return False

    device_type = x.device.type
    dtype = computing_dtype(x)
    kernel_size = tuple(weight.shape[2:])
    if implementation == 'op':
        obstacle = _obstacle_to_tensors(x, weight) or obstacle_to_op(
            'cpu' if device_type == 'meta' else device_type, dtype, kernel_size, dilation
        )
        if obstacle is not None:
            raise RuntimeError(
                f'{origin}, but the op cannot run here: {obstacle}. Choose native to run F.conv2d'
            )
        return True

    library.report_missing(device_type)
    if _is_left_to_native(x, weight):
        return False
    batch, channels, height, width = x.shape
    choice = choose_implementation(
        device_type=device_type,
        dtype=dtype,
        kernel_size=kernel_size,
        dilation=dilation,
        batch=batch,
        channels=channels,
        height=height,
        width=width,
        channels_last=not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last),
        needs_grad=_needs_grad(x, weight, bias),
    )
    return choice == 'op'


def _needs_grad(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    return torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )


def _obstacle_to_tensors(x: Tensor, weight: Tensor) -> str | None:
    """Why the operator cannot take tensors of this kind, None if it can."""
    if _is_transformed():
        return 'torch.func and forward-mode differentiation do not know it'
    if x.dim() != 4:
        return f'x must have the shape (N, C, H, W), got {tuple(x.shape)}'
    for name, tensor in (('x', x), ('weight', weight)):
        if tensor.layout is not torch.strided:
            return f'{name} has the layout {tensor.layout}, not torch.strided'
    return None


def _is_left_to_native(x: Tensor, weight: Tensor) -> bool:
    """Whether 'auto' does not even ask whether the operator would be faster."""
    if _obstacle_to_tensors(x, weight) is not None or _is_exporting() or torch.jit.is_tracing():
        return True
    return any(
        type(tensor) not in _PLAIN_TYPES and not isinstance(tensor, FakeTensor)
        for tensor in (x, weight)
    )


def _is_exporting() -> bool:
    # torch.compiler.is_exporting() is True in all that torch.compile traces.
    return torch.compiler._is_exporting_flag
