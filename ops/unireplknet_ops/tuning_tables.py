"""What `tune` measured on a device, and the shapes for which it follows that the op is faster.

A tuning table is a JSON file in `tuning/`, written only by `unireplknet_ops.tune`: one row a cell,
a cell being one shape at which the op and torch's native convolution were timed in turn. It holds
speed-ups (native time / op time) of the forward, the gradient of the input, the gradient of the weight,
and of the three together, which is what training pays.

Between the cells nothing was measured, so what follows from them is kept conservative:

- The axes are the kernel size, the area of the map, the number of planes (batch × channels) and the
  threads. Along each of area and planes a cell speaks for values within a factor `REACH` of its own;
  between two cells both must say that the op is faster. A cell of the kernel axis speaks for its own
  size only. So a shape in a gap of all three axes rests on eight cells, and one slow cell is enough to
  keep the native path.
- Below the smallest map, the fewest planes and the smallest kernel of the table the fixed cost of a call
  decides, and it was not measured there: native. Above the largest, both times grow with the work and
  their ratio has settled: the outermost cell speaks. For the same reason a cell that was too slow to
  measure (a large kernel on many planes) takes the result of the same map and kernel with fewer planes.
- Threads between two measured counts need both; beyond the largest, planes count in proportion, so that
  a thread has no less work than it had when measured.
- Dilated kernels (dilation > 1) are a table of their own, in which all measured dilations of a kernel
  size must agree. A rectangular kernel needs the agreement of both squares.
- Below `MINIMUM_CHANNELS` channels the vector lanes of the op run partly empty, and maps narrower than
  `MINIMUM_SIDE` are not like the measured squares of the same area: native.
- 'Faster' means by `MARGIN` at least, which is above the noise of the minimum over repetitions.

The result is a handful of intervals for each kernel size, so that a choice is a few comparisons: cheap,
and under torch.compile with symbolic sizes its guards are ranges.
"""

import functools
import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from unireplknet_ops import library
from unireplknet_ops.errors import OpUnavailableError, TuningTableError
from unireplknet_ops.files import write_text

FORMAT = 1
X86 = 'x86_64'
CPU_LEVELS = ('portable', 'avx2', 'avx512', 'avx512_bf16')  # worst first
PASSES = ('forward', 'grad_input', 'grad_weight', 'training')
MARGIN = 1.05
REACH = 1.25
MINIMUM_CHANNELS = 16
MINIMUM_SIDE = 6


class Cell(NamedTuple):
    """One measured shape; the last four are native time / op time."""

    kernel_size: int
    dilation: int
    height: int
    width: int
    batch: int
    channels: int
    threads: int
    forward: float
    grad_input: float
    grad_weight: float
    training: float

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def planes(self) -> int:
        return self.batch * self.channels

    def __str__(self) -> str:
        return (
            f'{self.kernel_size}x{self.kernel_size} dilation {self.dilation}, map '
            f'{self.height}x{self.width}, batch {self.batch}, channels {self.channels}, threads '
            f'{self.threads}: forward {self.forward:g}x, grad-input {self.grad_input:g}x, grad-weight '
            f'{self.grad_weight:g}x, together {self.training:g}x'
        )


class TuningTable(NamedTuple):
    """A table as it stands in the file; `cells` by (dtype name, layout name)."""

    device_type: str
    level: str  # of CPU_LEVELS, or sm_90
    device: str
    torch: str
    date: str
    command: str
    cells: dict[tuple[str, str], tuple[Cell, ...]]
    machine: str = X86  # the processor's architecture, which older files do not state

    def cells_for(self, dtype: torch.dtype, channels_last: bool) -> tuple[Cell, ...]:
        return self.cells.get((dtype_name(dtype), layout_name(channels_last)), ())

    @property
    def name(self) -> str:
        """The file's name without extension: what tells two tables apart."""
        if self.device_type == 'cpu':
            return (
                f'cpu-{self.level}' if self.machine == X86 else f'cpu-{self.machine}-{self.level}'
            )
        return f'{self.device_type}-{self.level}-{self.device.lower().replace(" ", "-")}'

    def __str__(self) -> str:
        return f'{self.name} ({self.device}, torch {self.torch}, {self.date})'


class Bin(NamedTuple):
    """The values begin <= value < end (None: no end) of an axis and the measured ones they rest on."""

    begin: int
    end: int | None
    rests_on: tuple[int, ...]

    def holds(self, value: int) -> bool:
        return self.begin <= value and (self.end is None or value < self.end)


# Kernel sizes begin <= size < end, and for each of them planes begin <= planes < end, and for each of
# these the areas begin <= area < end where the op wins; an end of None is no end. Plain tuples of numbers:
# torch.compile takes them as constants.
Interval = tuple[int, int | None]
Segment = tuple[int, int | None, tuple[Interval, ...]]
Regions = tuple[tuple[int, int | None, tuple[Segment, ...]], ...]


def directory() -> Path:
    """Where tables are read from: `tuning`, or what UNIREPLKNET_TUNING_DIR names."""
    override = os.environ.get('UNIREPLKNET_TUNING_DIR')
    return Path(override) if override else Path(__file__).with_name('tuning')


def layout_name(channels_last: bool) -> str:
    return 'channels_last' if channels_last else 'contiguous'


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def write(table: TuningTable, folder: Path) -> Path:
    """Write the table, sorted and one cell a line, replacing an older one whole.

    Raises:
        FileError: it cannot be written.
    """
    head = {'format': FORMAT}
    head |= {key: value for key, value in table._asdict().items() if key != 'cells'}
    lines = [f'  {json.dumps(key)}: {json.dumps(value)},' for key, value in head.items()]
    groups = []
    for (dtype, layout), cells in sorted(table.cells.items()):
        rows = ',\n'.join(
            f'      {json.dumps(list(cell), separators=(",", ":"))}' for cell in sorted(cells)
        )
        groups.append(f'    {json.dumps(f"{dtype} {layout}")}: [\n{rows}\n    ]')
    columns = f'  "columns": {json.dumps(list(Cell._fields))},'
    text = '\n'.join(['{', *lines, columns, '  "cells": {', ',\n'.join(groups), '  }', '}', ''])
    path = folder / f'{table.name}.json'
    write_text(path, text)
    return path


def read(path: Path) -> TuningTable:
    """Read one table.

    Raises:
        TuningTableError: the file is no tuning table of this format.
        OSError: there is no such file, or it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        if content['format'] != FORMAT or content['columns'] != list(Cell._fields):
            raise ValueError(f'its format is not {FORMAT}')
        cells = {}
        for group, rows in content['cells'].items():
            dtype, layout = group.split(' ')
            if not all(type(number) in (int, float) for row in rows for number in row):
                raise ValueError('a cell holds something else than numbers')
            cells[dtype, layout] = tuple(Cell(*row) for row in rows)
        content = {'machine': X86} | content | {'cells': cells}
        return TuningTable(**{key: content[key] for key in TuningTable._fields})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TuningTableError(
            f'{path} is not a tuning table that can be read ({error}): write it again with '
            'python -m unireplknet_ops.tune'
        ) from error


@functools.cache
def read_all(folder: Path) -> tuple[TuningTable, ...]:
    """The tables of a folder; one that cannot be read is named in a warning and left out."""
    tables = []
    for path in sorted(folder.glob('*.json')):
        try:
            tables.append(read(path))
        except (OSError, ValueError) as error:
            library.logger.warning('Tuning table left out: %s', error)
    return tuple(tables)


def device_level(device: torch.device | str) -> str:
    """The instruction set that the CPU op uses, or a GPU's compute capability; 'cuda' is the current GPU.

    Raises:
        OpUnavailableError: UNIREPLKNET_CPU_ISA names an instruction set that cannot run here.
    """
    device = torch.device(device)
    if device.type == 'cpu':
        try:
            return torch.ops.unireplknet.cpu_isa()
        except RuntimeError as error:
            raise OpUnavailableError(str(error)) from None
    major, minor = torch.cuda.get_device_capability(device)
    return f'sm_{major}{minor}'


def device_name(device: torch.device | str) -> str:
    """The processor's or the GPU's name; 'cuda' is the current GPU."""
    device = torch.device(device)
    if device.type != 'cpu':
        return torch.cuda.get_device_name(device)
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else 'CPU'


def machine() -> str:
    """The processor's architecture, as Linux calls it: x86_64, aarch64, ..."""
    name = platform.machine().lower()
    return {'amd64': X86, 'arm64': 'aarch64'}.get(name, name)


def table_for(device: torch.device | str) -> TuningTable | None:
    """The table that speaks for a device, None if none does; 'cuda' is the current GPU.

    A GPU takes its own model's, else one of the same compute capability; a CPU that of its architecture
    and instruction set, of whatever model. The two AVX-512 levels, whose float32 kernels are the same, take
    each other's too. What was measured elsewhere says nothing, of the op nor of torch.
    """
    device = torch.device(device)
    level, name = device_level(device), device_name(device)
    related = CPU_LEVELS[2:] if level in CPU_LEVELS[2:] else (level,)
    tables = [
        table
        for table in read_all(directory())
        if table.device_type == device.type
        and table.level in related
        and (device.type != 'cpu' or table.machine == machine())
    ]
    return min(
        tables,
        key=lambda table: (table.level != level, table.device != name, table.name),
        default=None,
    )


def winning_regions(
    cells: Sequence[Cell], *, dilated: bool, threads: int, training: bool
) -> Regions:
    """Where the op is faster, by the rules in this module's docstring."""
    cells = [cell for cell in cells if (cell.dilation > 1) == dilated]
    if not cells:
        return ()
    axes = Axes(cells, threads)
    regions = []
    for kernel in axes.kernels:
        segments: list[Segment] = []
        for planes in axes.planes:
            areas = [area for area in axes.areas if axes.all_faster(kernel, planes, area, training)]
            intervals = _merge((area.begin, area.end) for area in areas)
            if segments and segments[-1][1:] == (planes.begin, intervals):
                segments[-1] = (segments[-1][0], planes.end, intervals)
            elif intervals:
                segments.append((planes.begin, planes.end, intervals))
        if segments:
            regions.append((kernel.begin, kernel.end, tuple(segments)))
    return tuple(regions)


def surrounding_cells(
    cells: Sequence[Cell], *, kernel_size: int, dilation: int, threads: int, planes: int, area: int
) -> list[Cell]:
    """The cells that the choice for a square kernel rests on; empty where none speaks."""
    cells = [cell for cell in cells if (cell.dilation > 1) == (dilation > 1)]
    if not cells:
        return []
    axes = Axes(cells, threads)
    bins = [
        next((bin_ for bin_ in axis if bin_.holds(value)), None)
        for axis, value in ((axes.kernels, kernel_size), (axes.planes, planes), (axes.areas, area))
    ]
    return [] if None in bins else axes.cells_of(*bins) or []


class Axes:
    """The bins of each axis of a group of cells, seen from a number of threads."""

    def __init__(self, cells: Sequence[Cell], threads: int):
        counts = sorted({cell.threads for cell in cells})
        self.thread_counts = {
            max((count for count in counts if count <= threads), default=counts[0]),
            min((count for count in counts if count >= threads), default=counts[-1]),
        }
        self.kernels = _bins({cell.kernel_size for cell in cells}, reach=1)
        self.areas = _bins({cell.area for cell in cells}, reach=REACH)
        self.planes = _bins(
            {cell.planes for cell in cells}, reach=REACH, scale=max(threads / counts[-1], 1)
        )
        # by (threads, kernel size, area), then by planes: one cell a dilation
        self._measured: dict[tuple[int, int, int], dict[int, list[Cell]]] = {}
        for cell in cells:
            by_planes = self._measured.setdefault((cell.threads, cell.kernel_size, cell.area), {})
            by_planes.setdefault(cell.planes, []).append(cell)

    def cells_of(self, kernel: Bin, planes: Bin, area: Bin) -> list[Cell] | None:
        """The cells that three bins rest on, or None if one of them was not measured."""
        found = []
        for threads in sorted(self.thread_counts):
            for size in kernel.rests_on:
                for map_area in area.rests_on:
                    by_planes = self._measured.get((threads, size, map_area), {})
                    for wanted in planes.rests_on:
                        fewer = [count for count in by_planes if count <= wanted]
                        if not fewer:
                            return None
                        found += [cell for cell in by_planes[max(fewer)] if cell not in found]
        return found

    def all_faster(self, kernel: Bin, planes: Bin, area: Bin, training: bool) -> bool:
        cells = self.cells_of(kernel, planes, area)
        return bool(cells) and all(is_faster(cell, training) for cell in cells)


def is_faster(cell: Cell, training: bool) -> bool:
    return (cell.training if training else cell.forward) >= MARGIN


def _bins(values: Iterable[int], reach: float, scale: float = 1.0) -> list[Bin]:
    """Each value's own bin, from value / reach to value * reach, and the gaps between two."""
    values = sorted(values)
    begins = [math.ceil(value / reach * scale) for value in values]
    ends = [math.floor(value * reach * scale) + 1 for value in values]
    for i in range(len(values) - 1):
        if ends[i] > begins[i + 1]:  # two reaches overlap: they meet in the geometric middle
            ends[i] = begins[i + 1] = math.ceil(math.sqrt(values[i] * values[i + 1]) * scale)
    bins = []
    for i, value in enumerate(values):
        is_last = i == len(values) - 1
        bins.append(Bin(begins[i], None if is_last else ends[i], (value,)))
        if not is_last and ends[i] < begins[i + 1]:
            bins.append(Bin(ends[i], begins[i + 1], (value, values[i + 1])))
    return bins


def _merge(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Join ascending intervals where one ends as the next begins."""
    merged: list[Interval] = []
    for begin, end in intervals:
        if merged and merged[-1][1] == begin:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((begin, end))
    return tuple(merged)
