"""What `tune` measured on a device, and which implementation follows from it for each pass.

A tuning table is a JSON file in `tuning/`, written only by `unireplknet_ops.tune`: one row a cell,
a cell being one shape at which the op and torch's native convolution were timed in turn. It holds
speed-ups (native time / op time) of the forward, the gradient of the input and the gradient of the weight.

For a convolution the nearest cell of its dtype and layout speaks, and each pass runs on what was not slower
there. The nearest is found along two axes, in ratios: the kernel size (of a rectangle the larger side), and
the elements of the map that a thread has, since those decide between the fixed cost of a call, the
caches and the memory. Dilated kernels (dilation > 1) have cells of their own.

The result is a few bounds, so that a choice is a few comparisons: cheap, and under torch.compile with
symbolic sizes its guards are ranges.
"""

import functools
import itertools
import json
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from unireplknet_ops import library
from unireplknet_ops.errors import OpUnavailableError, TuningTableError
from unireplknet_ops.files import write_text

FORMAT = 2
X86 = 'x86_64'
CPU_LEVELS = ('portable', 'avx2', 'avx512', 'avx512_bf16')  # worst first
Pass = Literal['forward', 'grad_input', 'grad_weight']
PASSES: tuple[Pass, ...] = ('forward', 'grad_input', 'grad_weight')
NOT_SLOWER = 0.95


class Cell(NamedTuple):
    """One measured shape, on one thread of a CPU; the last three are native time / op time."""

    kernel_size: int
    dilation: int
    height: int
    width: int
    batch: int
    channels: int
    forward: float
    grad_input: float
    grad_weight: float

    @property
    def elements(self) -> int:
        return self.batch * self.channels * self.height * self.width

    @property
    def winners(self) -> tuple[bool, ...]:
        """Of each of `PASSES`, whether the op was not slower, beyond what measurements differ by."""
        return tuple(ratio >= NOT_SLOWER for ratio in self[-len(PASSES) :])

    def __str__(self) -> str:
        return (
            f'{self.kernel_size}x{self.kernel_size} dilation {self.dilation}, map '
            f'{self.height}x{self.width}, batch {self.batch}, channels {self.channels}: forward '
            f'{self.forward:g}x, grad-input {self.grad_input:g}x, grad-weight {self.grad_weight:g}x'
        )


class TuningTable(NamedTuple):
    """A table as it stands in the file; `cells` by (dtype name, layout name)."""

    device_type: str
    level: str  # of CPU_LEVELS, or sm_90
    device: str
    machine: str  # the processor's architecture
    torch: str
    date: str
    command: str
    cells: dict[tuple[str, str], tuple[Cell, ...]]

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


# (bound, what is there up to it), ascending, the last without a bound: of kernel sizes, and within one of
# elements.
Steps = tuple[tuple[int | None, Any], ...]


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
        content = content | {'cells': cells}
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
    and instruction set, of whatever model. What was measured elsewhere says nothing, of the op nor of torch.
    """
    device = torch.device(device)
    level, name = device_level(device), device_name(device)
    tables = [
        table
        for table in read_all(directory())
        if table.device_type == device.type
        and table.level == level
        and (device.type != 'cpu' or table.machine == machine())
    ]
    return min(tables, key=lambda table: (table.device != name, table.name), default=None)


def steps_of(cells: Sequence[Cell], *, dilated: bool, threads: int) -> Steps:
    """The cells by kernel size and elements, for `nearest`; empty where none was measured."""
    by_kernel: dict[int, dict[int, Cell]] = {}
    for cell in cells:
        if (cell.dilation > 1) == dilated:
            by_kernel.setdefault(cell.kernel_size, {})[cell.elements * threads] = cell
    return _steps({size: _steps(by_elements) for size, by_elements in by_kernel.items()})


def winners_of(steps: Steps) -> Steps:
    """With the winners in the place of the cells: constants that torch.compile can keep.

    Neighbours that agree are one, so that a graph need not tell them apart.
    """
    return tuple((kernel_bound, _merged(sizes)) for kernel_bound, sizes in steps)


def _merged(sizes: Steps) -> Steps:
    winners = [(bound, cell.winners) for bound, cell in sizes]
    return tuple(
        step
        for step, after in zip(winners, [*winners[1:], (None, None)], strict=True)
        if step[1] != after[1]
    )


def _steps(by_value: dict[int, Any]) -> Steps:
    values = sorted(by_value)
    bounds = [*(math.isqrt(a * b) for a, b in itertools.pairwise(values)), None]
    return tuple((bound, by_value[value]) for bound, value in zip(bounds, values, strict=False))


def nearest(steps: Steps, kernel_size: int, elements: int) -> Any:
    """What is nearest in kernel size, then in elements; `steps` must not be empty."""
    return _step(_step(steps, kernel_size), elements)


def _step(steps: Steps, value: int) -> Any:
    for bound, there in steps[:-1]:
        if value <= bound:
            return there
    return steps[-1][1]
