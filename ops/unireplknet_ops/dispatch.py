"""Which implementation runs a depthwise convolution: the op, or torch's native one.

`choose` asks one question after the other for 'auto'; the op runs only where it can and was measured to be
faster on this kind of device (`tuning_tables` says what follows from a measurement for the shapes around it).
Training rests on forward, gradient of the input and gradient of the weight together, inference on the
forward alone. Without a table for a device, and on every GPU until `gpu_check.sh` has written one, the native
path runs.

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
from unireplknet_ops.tuning_tables import MINIMUM_CHANNELS, MINIMUM_SIDE, Regions

Implementation = Literal['native', 'op']

FORCE_VARIABLE = 'UNIREPLKNET_DWCONV'
IMPLEMENTATIONS = ('auto', 'native', 'op')
PLAIN_TYPES = {Tensor, nn.Parameter}

# What `choose_by_measurement` can say.
NO_TABLE = 'there is no tuning table for this device'
TOO_FEW_CHANNELS = f'fewer than {MINIMUM_CHANNELS} channels were not measured'
TOO_NARROW = f'maps narrower than {MINIMUM_SIDE} were not measured'
FASTER = 'the op was measured to be faster'
NOT_FASTER = 'the op was not measured to be faster'


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


class Choice(NamedTuple):
    """What runs, and why, in a few words; whether the device's tuning table was asked."""

    implementation: Implementation
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
        return Choice('native', f'{FORCE_VARIABLE}=native overrides the tuning tables')
    device_type, dtype, kernel_size, dilation = problem.device.type, *problem[1:4]
    if forced == 'op':
        demand_op(f'{FORCE_VARIABLE}=op', device_type, dtype, kernel_size, dilation, tensors)
        return Choice('op', f'{FORCE_VARIABLE}=op overrides the tuning tables')
    obstacle = obstacle_to_op(device_type, dtype, kernel_size, dilation, tensors)
    if obstacle is not None:
        if tensors:
            library.report_missing(device_type)
        return Choice('native', f'the op cannot run: {obstacle}')
    if is_recorded:
        return Choice('native', 'the graph leaves the process, and any torch loads a convolution')
    if any(type(tensor) not in PLAIN_TYPES and not is_fake(tensor) for tensor in tensors):
        return Choice('native', 'a subclass of torch.Tensor may be more than its numbers')
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
    """The op where it was measured to be faster, by the tuning table of the device."""
    is_dilated = True if problem.dilation > 1 else False  # noqa: SIM210  bool() would stay symbolic
    regions = _winning_regions(
        problem.device.type,
        problem.device.index,
        problem.dtype,
        problem.channels_last,
        is_dilated,
        problem.needs_grad,
    )
    if regions is None:
        return Choice('native', NO_TABLE, True)
    if problem.channels < MINIMUM_CHANNELS:
        return Choice('native', TOO_FEW_CHANNELS, True)
    if problem.height < MINIMUM_SIDE or problem.width < MINIMUM_SIDE:
        return Choice('native', TOO_NARROW, True)
    planes, area = problem.batch * problem.channels, problem.height * problem.width
    kernel_height, kernel_width = problem.kernel_size
    if _is_inside(regions, kernel_height, planes, area) and (
        kernel_width == kernel_height or _is_inside(regions, kernel_width, planes, area)
    ):
        return Choice('op', FASTER, True)
    return Choice('native', NOT_FASTER, True)


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
    needs_grad: bool,
) -> Implementation:
    """The implementation for a depthwise convolution of stride 1 with 'same' padding.

    Args:
        device: of the input and the weight; 'cuda' is the current GPU.
        device_type: instead of `device`, 'cpu', or 'cuda' for the current GPU.
        dtype: of the input and the weight; under autocast, the dtype computed in.
        kernel_size: (Kh, Kw).
        dilation: of both axes.
        batch, channels, height, width: N, C, H, W of the input; may be symbolic.
        channels_last: whether the input lies in memory with its channels innermost.
        needs_grad: whether a backward pass will follow.

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
    return choose(problem).implementation


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
    lines = [f'{asked}: {choice.implementation}', f'- {choice.reason}']
    if choice.is_measured:
        lines += _measurements(asked, choice)
    return '\n'.join(lines)


def _measurements(problem: Problem, choice: Choice) -> list[str]:
    """The lines of `explain` about what `choose_by_measurement` rests on."""
    device = problem.device
    table = tuning_tables.table_for(device)
    here = f'{tuning_tables.device_name(device)} ({tuning_tables.device_level(device)})'
    if table is None:
        return [
            f'- {tuning_tables.directory()} holds none for {here}; '
            f'python -m unireplknet_ops.tune --device {device.type} writes it'
        ]
    whose = 'its own' if table.device == tuning_tables.device_name(device) else "another device's"
    lines = [f'- {here} takes {whose} tuning table, {table}']
    if choice.reason not in (FASTER, NOT_FASTER):
        return lines
    what = 'all three passes together' if problem.needs_grad else 'the forward pass'
    lines.append(
        f'- in {what} the op must be {tuning_tables.MARGIN:g}x as fast in each of these cells:'
    )
    for size in dict.fromkeys(problem.kernel_size):
        cells = tuning_tables.surrounding_cells(
            table.cells_for(problem.dtype, problem.channels_last),
            kernel_size=size,
            dilation=problem.dilation,
            threads=_threads(device.type),
            planes=problem.batch * problem.channels,
            area=problem.height * problem.width,
        )
        lines += [
            f'  {"yes" if tuning_tables.is_faster(cell, problem.needs_grad) else "no"}: {cell}'
            for cell in cells
        ] or [f'  none was measured around this shape for {size}x{size}']
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


@constant_in_graphs
def forced_implementation() -> Implementation | None:
    """What UNIREPLKNET_DWCONV forces, None if it is not set; ArgumentError if it is not known."""
    forced = os.environ.get(FORCE_VARIABLE) or None
    if forced not in (None, 'native', 'op'):
        raise ArgumentError(f'{FORCE_VARIABLE}={forced} is not known: choose native or op')
    return forced


# What has been found out is remembered: what `depthwise_conv2d` runs, by everything that it depends on,
# and the tables with what follows from them.

MAXIMUM_CHOICES = 4096  # a training on images of all sizes starts over then
choices: dict[tuple, Implementation] = {}


def remember(key: tuple, implementation: Implementation) -> None:
    """Keep a choice in `choices`."""
    if len(choices) >= MAXIMUM_CHOICES:
        choices.clear()
    choices[key] = implementation


def clear_cache() -> None:
    """Forget choices and tables; for after writing a new table or loading a library."""
    choices.clear()
    _regions_of.cache_clear()
    tuning_tables.read_all.cache_clear()


@constant_in_graphs
def _missing_library(device_type: str) -> str | None:
    return library.missing(device_type)


@constant_in_graphs
def _winning_regions(
    device_type: str,
    index: int | None,
    dtype: torch.dtype,
    channels_last: bool,
    dilated: bool,
    training: bool,
) -> Regions | None:
    """Where the op is faster on a device, index None being the current one; None without a table."""
    if device_type == 'cuda' and index is None:
        index = torch.cuda.current_device()
    device = torch.device(device_type if index is None else f'{device_type}:{index}')
    return _regions_of(device, dtype, channels_last, dilated, training, _threads(device_type))


@functools.cache
def _regions_of(
    device: torch.device,
    dtype: torch.dtype,
    channels_last: bool,
    dilated: bool,
    training: bool,
    threads: int,
) -> Regions | None:
    table = tuning_tables.table_for(device)
    if table is None:
        return None
    cells = table.cells_for(dtype, channels_last)
    return tuning_tables.winning_regions(cells, dilated=dilated, threads=threads, training=training)


def _threads(device_type: str) -> int:
    return torch.get_num_threads() if device_type == 'cpu' else 1


def _is_inside(regions: Regions, kernel_size, planes, area) -> bool:
    for kernel_begin, kernel_end, segments in regions:
        if not _is_between(kernel_size, kernel_begin, kernel_end):
            continue
        for planes_begin, planes_end, areas in segments:
            if not _is_between(planes, planes_begin, planes_end):
                continue
            for begin, end in areas:
                if _is_between(area, begin, end):
                    return True
    return False


def _is_between(value, begin: int, end: int | None) -> bool:
    return value >= begin and (end is None or value < end)
