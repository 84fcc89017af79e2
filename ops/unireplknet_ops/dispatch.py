"""Which implementation runs each pass of a depthwise convolution: the op, or torch's native one.

`choose` asks one question after the other for 'auto'. Forward, gradient of the input and gradient of the
weight are chosen one by one, by the nearest measurement on this kind of device (`tuning_tables`): a training
step may run the forward natively and the gradients by the op. Where nothing was measured, the op runs on CPUs
for kernels of `LARGE_KERNEL` and up: PyTorch has no vectorised path for many of them, by dtype, layout and
processor, and then takes 10 to 1000 times as long. GPUs stay native until `gpu_check.sh` has measured them.

`explain` tells why. UNIREPLKNET_DWCONV=native or op overrides the choice for the whole process.

Under torch.compile the choice is made while tracing: environment, tables and library are read then, and
symbolic sizes are only compared with a few bounds, so that the guards are ranges.
"""

import functools
import os
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from unireplknet_ops import library, tuning_tables
from unireplknet_ops.convolution_rules import (
    DTYPES,
    check_shapes,
    is_channels_last,
    limit_reached,
    one_dilation,
)
from unireplknet_ops.errors import ArgumentError, OpUnavailableError, UserError
from unireplknet_ops.torch_internals import constant_in_graphs, is_fake, is_transformed
from unireplknet_ops.tuning_tables import Pass, Steps

Implementation = Literal['native', 'op']

FORCE_VARIABLE = 'UNIREPLKNET_DWCONV'
IMPLEMENTATIONS = ('auto', 'native', 'op')
PLAIN_TYPES = {Tensor, nn.Parameter}

LARGE_KERNEL = 7
# Rows and columns of at most so many taps stand in no table. In channels_last PyTorch's convolutions
# of them, but not its gradients of the filter, took 0.45 to 1.0 of the op's time on all but small maps.
LONGEST_LINE = 11

# What `choose_by_measurement` can say.
MEASURED = 'each pass runs on what was not slower in the nearest measurement'
NOT_MEASURED = 'nothing was measured for this dtype and layout on such a device'


class Problem(NamedTuple):
    """A convolution to choose for, as the arguments of `choose_implementation` describe it."""

    device: torch.device
    dtype: torch.dtype
    kernel_size: tuple[int, int]
    dilation: int
    batch: int
    channels: int
    height: int
    width: int
    channels_last: bool
    needs_grad: bool

    def __str__(self) -> str:
        height, width = self.kernel_size
        shape = (self.batch, self.channels, self.height, self.width)
        layout = tuning_tables.layout_name(self.channels_last)
        dtype = tuning_tables.dtype_name(self.dtype)
        where = str(self.device)
        if self.device.type == 'cpu':
            where = f'{where} with {torch.get_num_threads()} threads'
        purpose = 'training' if self.needs_grad else 'inference'
        return f'{height}x{width} dilation {self.dilation} on {shape} {layout} {dtype}, {where}, {purpose}'


class Passes(NamedTuple):
    """What runs each pass."""

    forward: Implementation
    grad_input: Implementation
    grad_weight: Implementation

    def __str__(self) -> str:
        if len(set(self)) == 1:
            return self.forward
        return ', '.join(f'{name} {value}' for name, value in self._asdict().items())


NATIVE = Passes('native', 'native', 'native')
OP = Passes('op', 'op', 'op')


class Choice(NamedTuple):
    """What runs, and why, in a few words; whether the device's tuning table was asked."""

    passes: Passes
    reason: str
    is_measured: bool = False


def unknown_implementation(wanted: str) -> ArgumentError:
    """What to raise for one that is none of `IMPLEMENTATIONS`."""
    return ArgumentError(
        f'implementation={wanted!r} is not known: choose one of {", ".join(IMPLEMENTATIONS)}'
    )


def problem_of(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, needs_grad: bool | None = None
) -> Problem:
    """The problem that the arguments of `depthwise_conv2d` pose, autocast and gradient mode considered."""
    is_map = x.dim() == 4
    batch, channels, height, width = x.shape if is_map else (1, *x.shape)
    return Problem(
        device=x.device,
        dtype=computing_dtype(x),
        kernel_size=tuple(weight.shape[2:]),
        dilation=dilation,
        batch=batch,
        channels=channels,
        height=height,
        width=width,
        channels_last=is_map and x.layout is torch.strided and is_channels_last(x),
        needs_grad=needs_gradient(x, weight, bias) if needs_grad is None else needs_grad,
    )


def choose(
    problem: Problem, tensors: Sequence[Tensor] = (), *, is_recorded: bool = False
) -> Choice:
    """The choice of 'auto', asked in this order.

    Args:
        tensors: x and weight, if they are there to be looked at.
        is_recorded: for a graph that leaves the process.

    Raises:
        ArgumentError: UNIREPLKNET_DWCONV is neither empty, native nor op.
        OpUnavailableError: UNIREPLKNET_DWCONV=op, and the op cannot run.
    """
    forced = forced_implementation()
    if forced == 'native':
        return Choice(NATIVE, f'{FORCE_VARIABLE}=native overrides the tuning tables')
    device_type, dtype, kernel_size, dilation = problem.device.type, *problem[1:4]
    if forced == 'op':
        demand_op(f'{FORCE_VARIABLE}=op', device_type, dtype, kernel_size, dilation, tensors)
        return Choice(OP, f'{FORCE_VARIABLE}=op overrides the tuning tables')
    obstacle = obstacle_to_op(device_type, dtype, kernel_size, dilation, tensors)
    if obstacle is not None:
        if tensors:
            library.report_missing(device_type)
        return Choice(NATIVE, f'the op cannot run: {obstacle}')
    if is_recorded:
        return Choice(NATIVE, 'the graph leaves the process, and any torch loads a convolution')
    if any(type(tensor) not in PLAIN_TYPES and not is_fake(tensor) for tensor in tensors):
        return Choice(NATIVE, 'a subclass of torch.Tensor may be more than its numbers')
    return choose_by_measurement(problem)


def demand_op(
    origin: str,
    device_type: str,
    dtype: torch.dtype,
    kernel_size: tuple[int, int],
    dilation: int,
    tensors: Sequence[Tensor] = (),
) -> None:
    """OpUnavailableError if the op, which `origin` asks for by name, cannot run.

    For meta tensors it can where the CPU's can: they ask for the shape of what it returns.
    """
    device_type = 'cpu' if device_type == 'meta' else device_type
    obstacle = obstacle_to_op(device_type, dtype, kernel_size, dilation, tensors)
    if obstacle is not None:
        raise OpUnavailableError(
            f'{origin}, but the op cannot run here: {obstacle}. Choose native to run F.conv2d'
        )


def obstacle_to_op(
    device_type: str,
    dtype: torch.dtype,
    kernel_size: tuple[int, int],
    dilation: int,
    tensors: Sequence[Tensor] = (),
) -> str | None:
    """Why the op cannot run, None if it can."""
    if tensors and is_transformed():
        return 'torch.func and forward-mode differentiation do not know it'
    for tensor in tensors:
        if tensor.dim() != 4:
            return f'x must have the shape (N, C, H, W), got {tuple(tensor.shape)}'
        if tensor.layout is not torch.strided:
            return f'x or weight has the layout {tensor.layout}, not torch.strided'
    missing = _missing_library(device_type)
    if missing is not None:
        return missing
    if dtype not in DTYPES[device_type]:
        return f'it does not compute in {dtype} on {device_type}'
    return limit_reached(kernel_size, dilation)


def choose_by_measurement(problem: Problem) -> Choice:
    """The winner of each pass in the nearest measurement; without one, the op for large kernels on CPUs."""
    is_dilated = True if problem.dilation > 1 else False  # noqa: SIM210  bool() would stay symbolic
    steps = _steps_for(
        problem.device.type, problem.device.index, problem.dtype, problem.channels_last, is_dilated
    )
    smaller, larger = min(problem.kernel_size), max(problem.kernel_size)
    is_on_cpu = problem.device.type == 'cpu'
    if not steps:
        is_large = is_on_cpu and larger >= LARGE_KERNEL
        return Choice(OP if is_large else NATIVE, NOT_MEASURED, True)
    elements = problem.batch * problem.channels * problem.height * problem.width
    wins = tuning_tables.nearest(steps, larger, elements)
    passes = Passes(*('op' if won else 'native' for won in wins))
    if is_on_cpu and problem.channels_last and smaller == 1 < larger <= LONGEST_LINE:
        passes = passes._replace(forward='native', grad_input='native')
    return Choice(passes, MEASURED, True)


def choose_implementation(
    *,
    device: torch.device | str | None = None,
    device_type: str | None = None,
    dtype: torch.dtype,
    kernel_size: tuple[int, int],
    dilation: int,
    batch: int,
    channels: int,
    height: int,
    width: int,
    channels_last: bool,
    needs_grad: bool = False,
    which: Pass = 'forward',
) -> Implementation:
    """The implementation of one pass of a depthwise convolution of stride 1 with 'same' padding.

    Args:
        device: of the input and the weight; 'cuda' is the current GPU.
        device_type: instead of `device`, 'cpu', or 'cuda' for the current GPU.
        dtype: of the input and the weight; under autocast, the dtype computed in.
        kernel_size: (Kh, Kw).
        dilation: of both axes.
        batch, channels, height, width: N, C, H, W of the input; may be symbolic.
        channels_last: whether the input lies in memory with its channels innermost.
        needs_grad: whether a backward pass will follow, which changes nothing in the choice of a pass.
        which: forward, grad_input or grad_weight.

    Raises:
        ArgumentError: UNIREPLKNET_DWCONV is neither empty, native nor op; or not one of `device` and
            `device_type` is given.
        OpUnavailableError: UNIREPLKNET_DWCONV=op, and the op cannot run.
    """
    problem = Problem(
        _one_device(device, device_type),
        dtype,
        kernel_size,
        dilation,
        batch,
        channels,
        height,
        width,
        channels_last,
        needs_grad,
    )
    return getattr(choose(problem).passes, which)


def _one_device(device: torch.device | str | None, device_type: str | None) -> torch.device:
    if (device is None) == (device_type is None):
        raise ArgumentError(f'give device or device_type, got {device} and {device_type}')
    return torch.device(device_type if device is None else device)


def explain(
    x: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    dilation: int = 1,
    needs_grad: bool | None = None,
    **problem,
) -> str:
    """What is chosen for a convolution, and why, as text of a few lines.

    Args:
        x, weight, bias: (N, C, H, W), (C, 1, Kh, Kw) and (C,) or None, as given to `depthwise_conv2d`;
            or none of them, and the other arguments of `choose_implementation` by name.
        dilation: of both axes.
        needs_grad: None asks the tensors and torch's gradient mode.

    Raises:
        ArgumentError: only one of x and weight, or shapes that do not fit each other.
    """
    if (x is None) != (weight is None):
        raise ArgumentError('explain takes both x and weight, or neither')
    if x is None:
        tensors = ()
        device = _one_device(problem.pop('device', None), problem.pop('device_type', None))
        asked = Problem(device, dilation=dilation, needs_grad=bool(needs_grad), **problem)
    else:
        if problem:
            raise ArgumentError(
                f'beside x and weight, explain takes bias, dilation and needs_grad, not {", ".join(problem)}'
            )
        dilation = one_dilation(dilation)
        check_shapes(x, weight, bias, dilation)
        if x.dim() != 4:
            raise ArgumentError(f'x must have the shape (N, C, H, W), got {tuple(x.shape)}')
        tensors = x, weight
        asked = problem_of(x, weight, bias, dilation, needs_grad)
    try:
        choice = choose(asked, tensors)
    except UserError as error:
        return f'{asked}: an error: {error}'
    what = choice.passes if asked.needs_grad else choice.passes.forward
    lines = [f'{asked}: {what}', f'- {choice.reason}']
    if choice.is_measured:
        lines += _measurements(asked)
    return '\n'.join(lines)


def _measurements(problem: Problem) -> list[str]:
    """The lines of `explain` about what `choose_by_measurement` rests on."""
    device = problem.device
    table = tuning_tables.table_for(device)
    here = f'{tuning_tables.device_name(device)} ({tuning_tables.device_level(device)})'
    if table is None:
        return [
            f'- {tuning_tables.directory()} holds no tuning table for {here}; '
            f'python -m unireplknet_ops.tune --device {device.type} writes it'
        ]
    whose = 'its own' if table.device == tuning_tables.device_name(device) else "another device's"
    lines = [f'- {here} takes {whose} tuning table, {table}']
    steps = _cells_for(
        device, problem.dtype, problem.channels_last, problem.dilation > 1, _threads(device.type)
    )
    if steps:
        elements = problem.batch * problem.channels * problem.height * problem.width
        lines.append(f'- {tuning_tables.nearest(steps, max(problem.kernel_size), elements)}')
    return lines


def needs_gradient(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether a backward pass may follow."""
    return torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    )


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype that autocast computes in, None where it is off or the operator has no kernels."""
    if device_type in library.FILE_NAMES and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return None


def computing_dtype(x: Tensor) -> torch.dtype:
    """The dtype that a convolution of `x` computes in, autocast considered."""
    if not x.is_floating_point() or x.dtype == torch.float64:
        return x.dtype
    return autocast_dtype(x.device.type) or x.dtype


def forced_implementation() -> Implementation | None:
    """What UNIREPLKNET_DWCONV forces, None if it is not set; ArgumentError if it is not known."""
    return forced_by(FORCE_VARIABLE)


@constant_in_graphs
def forced_by(variable: str) -> Implementation | None:
    """What an environment variable forces, None if it is not set; ArgumentError if it is not known."""
    forced = os.environ.get(variable) or None
    if forced not in (None, 'native', 'op'):
        raise ArgumentError(f'{variable}={forced} is not known: choose native or op')
    return forced


# What has been found out is remembered: what `depthwise_conv2d` runs, by everything that it depends on,
# and the tables with what follows from them.

MAXIMUM_CHOICES = 4096  # a training on images of all sizes starts over then
choices: dict[tuple, Passes] = {}


def remember(key: tuple, passes: Passes) -> None:
    """Keep a choice in `choices`."""
    if len(choices) >= MAXIMUM_CHOICES:
        choices.clear()
    choices[key] = passes


def clear_cache() -> None:
    """Forget choices and tables; for after writing a new table or loading a library."""
    choices.clear()
    _winners_for.cache_clear()
    tuning_tables.read_all.cache_clear()


@constant_in_graphs
def _missing_library(device_type: str) -> str | None:
    return library.missing(device_type)


@constant_in_graphs
def _steps_for(
    device_type: str, index: int | None, dtype: torch.dtype, channels_last: bool, dilated: bool
) -> Steps:
    """The winners on a device, index None being the current one; empty where nothing was measured."""
    if device_type == 'cuda' and index is None:
        index = torch.cuda.current_device()
    device = torch.device(device_type if index is None else f'{device_type}:{index}')
    return _winners_for(device, dtype, channels_last, dilated, _threads(device_type))


@functools.cache
def _winners_for(*arguments) -> Steps:
    return tuning_tables.winners_of(_cells_for(*arguments))


def _cells_for(
    device: torch.device, dtype: torch.dtype, channels_last: bool, dilated: bool, threads: int
) -> Steps:
    table = tuning_tables.table_for(device)
    cells = () if table is None else table.cells_for(dtype, channels_last)
    return tuning_tables.steps_of(cells, dilated=dilated, threads=threads)


def _threads(device_type: str) -> int:
    return torch.get_num_threads() if device_type == 'cpu' else 1
