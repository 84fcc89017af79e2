"""Which implementation runs a depthwise convolution: the op, or torch's native one.

`choose_implementation` takes the op only where it can run and was measured to be faster on this kind of
device (`tuning_tables` says what follows from a measurement for the shapes around it). Training rests on
forward, gradient of the input and gradient of the weight together, inference on the forward alone. Without
a table for a device, and on every GPU until `gpu_check.sh` has written one, the native path runs.

`explain` tells why. UNIREPLKNET_DWCONV=native or op overrides the choice for the whole process.

Under torch.compile the choice is made while tracing: environment, tables and library are read then, and
symbolic sizes are only compared with a few bounds, so that the guards are ranges.
"""

import functools
import os
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from unireplknet_ops import library, tuning_tables
from unireplknet_ops.tracing import constant_in_graphs
from unireplknet_ops.tuning_tables import MINIMUM_CHANNELS, MINIMUM_SIDE, Regions

Implementation = Literal['native', 'op']

FORCE_VARIABLE = 'UNIREPLKNET_DWCONV'
MAXIMUM_KERNEL_SIZE = 63
MAXIMUM_DILATION = 15
MAXIMUM_DILATED_KERNEL_SIZE = 9
DTYPES = dict(
    cpu=(torch.float32, torch.bfloat16, torch.float16, torch.float64),
    cuda=(torch.float32, torch.bfloat16, torch.float16),
)
MAXIMUM_CHOICES = 4096  # kept; a training on images of all sizes starts over then


class Problem(NamedTuple):
    """The arguments of `choose_implementation`."""

    device_type: str
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
        where = self.device_type
        if self.device_type == 'cpu':
            where = f'{where} with {torch.get_num_threads()} threads'
        purpose = 'training' if self.needs_grad else 'inference'
        return f'{height}x{width} dilation {self.dilation} on {shape} {layout} {dtype}, {where}, {purpose}'


_choices: dict[tuple, Implementation] = {}
caches: list[dict] = [_choices]  # and those of callers that keep what was chosen


def choose_implementation(
    *,
    device_type: str,
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
        device_type, dtype: of the input and the weight; under autocast, the dtype computed in.
        kernel_size: (Kh, Kw).
        dilation: of both axes.
        batch, channels, height, width: N, C, H, W of the input; may be symbolic.
        channels_last: whether the input lies in memory with its channels innermost.
        needs_grad: whether a backward pass will follow.

    Raises:
        RuntimeError: UNIREPLKNET_DWCONV=op, and the op cannot run.
        ValueError: UNIREPLKNET_DWCONV is neither empty, native nor op.
    """
    problem = (
        device_type,
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
    if torch.compiler.is_compiling():
        return _choose(Problem(*problem))
    key = (problem, torch.get_num_threads(), os.environ.get(FORCE_VARIABLE))
    try:
        choice = _choices.get(key)
    except TypeError:  # symbolic sizes outside torch.compile have no hash
        return _choose(Problem(*problem))
    if choice is None:
        choice = _choose(Problem(*problem))
        if len(_choices) >= MAXIMUM_CHOICES:
            _choices.clear()
        _choices[key] = choice
        library.logger.debug('Depthwise convolution %s: %s', Problem(*problem), choice)
    return choice


def _choose(problem: Problem) -> Implementation:
    """The choice itself: forced, impossible, or measured, in this order."""
    forced = forced_implementation()
    obstacle = obstacle_to_op(
        problem.device_type, problem.dtype, problem.kernel_size, problem.dilation
    )
    if forced == 'op' and obstacle is not None:
        raise RuntimeError(
            f'{FORCE_VARIABLE}=op, but the op cannot run here: {obstacle}. Unset it to let the '
            'native convolution take over'
        )
    if forced is not None:
        return forced
    if obstacle is not None:
        return 'native'
    return 'op' if _is_op_faster(problem) else 'native'


def obstacle_to_op(
    device_type: str, dtype: torch.dtype, kernel_size: tuple[int, int], dilation: int
) -> str | None:
    """Why the op cannot run, or None if it can."""
    missing = _missing_library(device_type)
    if missing is not None:
        return missing
    if dtype not in DTYPES[device_type]:
        return f'it does not compute in {dtype} on {device_type}'
    largest = MAXIMUM_KERNEL_SIZE if dilation == 1 else MAXIMUM_DILATED_KERNEL_SIZE
    for size in kernel_size:
        if size % 2 == 0:
            return f'kernel size {kernel_size[0]}x{kernel_size[1]} is even'
        if size > largest:
            return (
                f'kernel size {kernel_size[0]}x{kernel_size[1]} with dilation {dilation} is above '
                f'{largest}'
            )
    if dilation > MAXIMUM_DILATION:
        return f'dilation {dilation} is above {MAXIMUM_DILATION}'
    return None


def explain(
    x: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    dilation: int = 1,
    needs_grad: bool | None = None,
    **problem,
) -> str:
    """What `choose_implementation` says of a convolution, and why, as text of a few lines.

    Args:
        x, weight, bias: (N, C, H, W), (C, 1, Kh, Kw) and (C,) or None, as given to `depthwise_conv2d`;
            or none of them, and the other arguments of `choose_implementation` by name.
        dilation: of both axes.
        needs_grad: None asks the tensors and torch's gradient mode.

    Raises:
        ValueError: only one of x and weight, or one of them without four dimensions.
    """
    if (x is None) != (weight is None):
        raise ValueError('explain takes both x and weight, or neither')
    if x is not None:
        if x.dim() != 4 or weight.dim() != 4:
            raise ValueError(
                f'x must have the shape (N, C, H, W) and weight (C, 1, Kh, Kw), got {tuple(x.shape)} '
                f'and {tuple(weight.shape)}'
            )
        if needs_grad is None:
            needs_grad = torch.is_grad_enabled() and any(
                tensor is not None and tensor.requires_grad for tensor in (x, weight, bias)
            )
        batch, channels, height, width = x.shape
        problem = dict(
            device_type=x.device.type,
            dtype=computing_dtype(x),
            kernel_size=tuple(weight.shape[2:]),
            batch=batch,
            channels=channels,
            height=height,
            width=width,
            channels_last=is_channels_last(x),
        )
    problem |= dict(dilation=dilation, needs_grad=bool(needs_grad))
    try:
        choice = choose_implementation(**problem)
    except (RuntimeError, ValueError) as error:
        choice = f'an error: {error}'
    return '\n'.join([f'{Problem(**problem)}: {choice}', *_reasons(Problem(**problem))])


def is_channels_last(x: Tensor) -> bool:
    """Whether (N, C, H, W) `x` has its channels innermost and is not NCHW-contiguous as well."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


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


def clear_cache() -> None:
    """Forget the choices and the tables read; for after writing a new table or loading a library."""
    for cache in caches:
        cache.clear()
    _regions_of.cache_clear()
    tuning_tables.read_all.cache_clear()


@constant_in_graphs
def forced_implementation() -> Implementation | None:
    """What UNIREPLKNET_DWCONV forces, None if it is not set; ValueError if it is not known."""
    forced = os.environ.get(FORCE_VARIABLE) or None
    if forced not in (None, 'native', 'op'):
        raise ValueError(f'{FORCE_VARIABLE}={forced} is not known: choose native or op')
    return forced


@constant_in_graphs
def _missing_library(device_type: str) -> str | None:
    return library.missing(device_type)


@constant_in_graphs
def _winning_regions(
    device_type: str, dtype: torch.dtype, channels_last: bool, dilated: bool, training: bool
) -> Regions:
    device = torch.cuda.current_device() if device_type == 'cuda' else 0
    threads = _threads(device_type)
    return _regions_of(device_type, device, dtype, channels_last, dilated, training, threads)


@functools.cache
def _regions_of(
    device_type: str,
    device: int,
    dtype: torch.dtype,
    channels_last: bool,
    dilated: bool,
    training: bool,
    threads: int,
) -> Regions:
    table = tuning_tables.nearest_table(device_type)
    if table is None:
        return ()
    cells = table.cells_for(dtype, channels_last)
    return tuning_tables.winning_regions(cells, dilated=dilated, threads=threads, training=training)


def _threads(device_type: str) -> int:
    return torch.get_num_threads() if device_type == 'cpu' else 1


def _is_op_faster(problem: Problem) -> bool:
    """Whether the shape lies where the op was measured to be faster."""
    if problem.channels < MINIMUM_CHANNELS:
        return False
    if problem.height < MINIMUM_SIDE or problem.width < MINIMUM_SIDE:
        return False
    is_dilated = True if problem.dilation > 1 else False  # noqa: SIM210  bool() would stay symbolic
    regions = _winning_regions(
        problem.device_type,
        problem.dtype,
        problem.channels_last,
        is_dilated,
        problem.needs_grad,
    )
    planes, area = problem.batch * problem.channels, problem.height * problem.width
    kernel_height, kernel_width = problem.kernel_size
    return _is_inside(regions, kernel_height, planes, area) and (
        kernel_width == kernel_height or _is_inside(regions, kernel_width, planes, area)
    )


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


def _reasons(problem: Problem) -> list[str]:
    """The lines of `explain` below the first."""
    device_type, kernel_size = problem.device_type, problem.kernel_size
    obstacle = obstacle_to_op(device_type, problem.dtype, kernel_size, problem.dilation)
    if obstacle is not None:
        return [f'- the op cannot run: {obstacle}']
    reasons = ['- the op can run']
    forced = os.environ.get(FORCE_VARIABLE)
    if forced:
        return [*reasons, f'- {FORCE_VARIABLE}={forced} overrides the tuning tables']
    table = tuning_tables.nearest_table(device_type)
    if table is None:
        return [
            *reasons,
            f'- there is no tuning table for {device_type} in {tuning_tables.directory()}; '
            f'python -m unireplknet_ops.tune --device {device_type} writes one',
        ]
    level = tuning_tables.device_level(device_type)
    reasons.append(f'- the nearest tuning table to {device_type} {level} is {table}')
    if problem.channels < MINIMUM_CHANNELS:
        return [*reasons, f'- fewer than {MINIMUM_CHANNELS} channels were not measured']
    if min(problem.height, problem.width) < MINIMUM_SIDE:
        return [*reasons, f'- maps narrower than {MINIMUM_SIDE} were not measured']
    what = 'all three passes together' if problem.needs_grad else 'the forward pass'
    reasons.append(
        f'- in {what} the op must be {tuning_tables.MARGIN:g}x as fast in each of these cells:'
    )
    for size in dict.fromkeys(kernel_size):
        cells = tuning_tables.surrounding_cells(
            table.cells_for(problem.dtype, problem.channels_last),
            kernel_size=size,
            dilation=problem.dilation,
            threads=_threads(device_type),
            planes=problem.batch * problem.channels,
            area=problem.height * problem.width,
        )
        reasons += [
            f'  {"yes" if tuning_tables.is_faster(cell, problem.needs_grad) else "no"}: {cell}'
            for cell in cells
        ] or [f'  none was measured around this shape for {size}x{size}']
    return reasons
