"""Measure a device and write its tuning table, from which `dispatch` chooses.

    python -m unireplknet_ops.tune                  # this CPU, 1 thread and all: about 8 minutes
    python -m unireplknet_ops.tune --isa avx2       # as if the CPU had no more than AVX2
    python -m unireplknet_ops.tune --device cuda    # the current GPU: about 2 minutes
    python -m unireplknet_ops.tune --output DIR     # not into the package (UNIREPLKNET_TUNING_DIR)

A cell times forward, gradient of the input and gradient of the weight of the op and of torch's native
convolution, in turn in one process (`measure` says how). Where a call is long and one of the two three times
as fast as the other, it is not repeated. Cells whose arithmetic is above a limit are left out, and so is what
is not reached in `--minutes`: the table is read so that the same map and kernel with fewer planes speaks for
them, and the native path runs where none does. A wrong result ends the run and nothing is written. Run it on
an idle machine; a check of the load insists on that.

With `--isa` both sides are held to that instruction set: the op by UNIREPLKNET_CPU_ISA, torch and oneDNN by
ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA, so that the table is that of a processor without the rest.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import torch

from unireplknet_ops import dispatch, library, tuning_tables
from unireplknet_ops.errors import UserError
from unireplknet_ops.measure import (
    PASSES,
    Shape,
    Tensors,
    Timer,
    WrongResultError,
    make_pool,
)
from unireplknet_ops.tuning_tables import CPU_LEVELS, Cell, TuningTable

# Both kinds of kernels of the network; dilated ones stand for their size at any dilation.
KERNELS = (*((size, 1) for size in (3, 5, 7, 9, 13, 17, 25, 31)), (3, 2), (3, 5), (5, 2), (7, 2))
CLEAR = 3.0  # a ratio of two calls that needs no repetition, if the slower takes CLEAR_SECONDS
CLEAR_SECONDS = 0.1

# What holds torch and oneDNN to a level of the op's.
NATIVE_LIMITS = {
    'portable': dict(ATEN_CPU_CAPABILITY='default', ONEDNN_MAX_CPU_ISA='SSE41'),
    'avx2': dict(ATEN_CPU_CAPABILITY='avx2', ONEDNN_MAX_CPU_ISA='AVX2'),
    'avx512': dict(ATEN_CPU_CAPABILITY='avx512', ONEDNN_MAX_CPU_ISA='AVX512_CORE_VNNI'),
    'avx512_bf16': {},
}


class Grid(NamedTuple):
    """Which cells to measure on a kind of device.

    `planes` are (batch, channels); 24 channels fill three quarters of 32 lanes, as an awkward width does.
    `most_products` limits taps times elements, and so the time of a cell; `budget` is the seconds spent on
    repeating one call.
    """

    dtypes: tuple[torch.dtype, ...]
    maps: tuple[tuple[int, int], ...]
    planes: tuple[tuple[int, int], ...]
    most_products: float
    most_elements: float
    budget: float


GRIDS = dict(
    cpu=Grid(
        dtypes=(torch.float32, torch.bfloat16),
        maps=((7, 7), (14, 14), (28, 28), (56, 56), (100, 168)),
        planes=((1, 24), (4, 24), (1, 384), (8, 384)),
        most_products=1e9,
        most_elements=6.5e6,
        budget=0.004,
    ),
    cuda=Grid(
        dtypes=(torch.float32, torch.float16, torch.bfloat16),
        maps=((7, 7), (14, 14), (28, 28), (56, 56), (100, 168), (200, 336)),
        planes=((1, 96), (1, 768), (8, 768), (64, 384)),
        most_products=6e9,
        most_elements=2.5e7,
        budget=0.002,
    ),
)


def grid_shapes(grid: Grid, dtype: torch.dtype) -> list[Shape]:
    """The cells within the limits, the quickest first."""
    shapes = []
    for kernel_size, dilation in KERNELS:
        for height, width in grid.maps:
            for batch, channels in grid.planes:
                shape = Shape(kernel_size, dilation, height, width, batch, channels, dtype)
                products = shape.flops / 2
                if products <= grid.most_products and shape.elements <= grid.most_elements:
                    shapes.append(shape)
    return sorted(shapes, key=lambda shape: shape.flops)


def measure_cell(shape: Shape, tensors: Tensors, timer: Timer, threads: int) -> Cell:
    """Time the three passes of one shape.

    Raises:
        WrongResultError: the op computed something else.
    """
    native_seconds, op_seconds = [], []
    for name in PASSES:
        calls = [lambda name=name: tensors.native(name), lambda name=name: tensors.op(name)]
        native_result, native_first = timer.first_call(calls[0])
        result, op_first = timer.first_call(calls[1])
        tensors.check(name, result, native_result)
        firsts = [native_first, op_first]
        is_clear = max(firsts) > max(CLEAR_SECONDS, CLEAR * min(firsts))
        times = firsts if is_clear else timer.time(calls, firsts)
        native_seconds.append(times[0])
        op_seconds.append(times[1])
    ratios = [native / op for native, op in zip(native_seconds, op_seconds, strict=True)]
    ratios.append(sum(native_seconds) / sum(op_seconds))
    numbers = (*shape[:-1], threads, *(float(f'{ratio:.3g}') for ratio in ratios))
    return Cell(*numbers)


def measure_table(
    device: str, grid: Grid, thread_counts: Sequence[int], minutes: float, command: str
) -> TuningTable:
    """Measure the grid, an equal share of the time for each dtype and layout; progress goes to stdout."""
    timer = Timer(device, grid.budget, least=2, most=20, once_above=0.2)
    cells: dict[tuple[str, str], tuple[Cell, ...]] = {}
    start = time.monotonic()
    share = 60 * minutes / (len(grid.dtypes) * 2 * len(thread_counts))
    before = torch.get_num_threads()
    try:
        for dtype in grid.dtypes:
            shapes = grid_shapes(grid, dtype)
            pool = make_pool(shapes, dtype, device)
            for channels_last in (False, True):
                measured = []
                for i, threads in enumerate(thread_counts):
                    torch.set_num_threads(threads)
                    deadline = start + share * (len(cells) * len(thread_counts) + i + 1)
                    for shape in shapes:
                        if time.monotonic() > deadline:
                            break
                        tensors = Tensors(shape, pool, channels_last)
                        with torch.no_grad():
                            measured.append(measure_cell(shape, tensors, timer, threads))
                group = tuning_tables.dtype_name(dtype), tuning_tables.layout_name(channels_last)
                cells[group] = tuple(sorted(measured))
                won = [
                    sum(tuning_tables.is_faster(cell, training) for cell in measured)
                    for training in (False, True)
                ]
                print(
                    f'{" ".join(group)}: {len(measured)} of {len(shapes) * len(thread_counts)} '
                    f'cells, the op faster in {won[0]} for inference and {won[1]} for training, '
                    f'{time.monotonic() - start:.0f} s',
                    flush=True,
                )
    finally:
        torch.set_num_threads(before)
    return TuningTable(
        device_type=device,
        level=tuning_tables.device_level(device),
        device=tuning_tables.device_name(device),
        torch=torch.__version__,
        date=datetime.now(timezone.utc).strftime('%Y-%m-%d'),
        command=command,
        cells=cells,
        machine=tuning_tables.machine(),
    )


def run_at_level(level: str) -> int:
    """Run this program again in a process whose op, torch and oneDNN know no more than `level`."""
    arguments = sys.argv[1:]
    environment = os.environ | NATIVE_LIMITS[level] | dict(UNIREPLKNET_CPU_ISA=level)
    command = [sys.executable, '-m', 'unireplknet_ops.tune', *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


def is_held_to(level: str) -> bool:
    limits = NATIVE_LIMITS[level] | dict(UNIREPLKNET_CPU_ISA=level)
    return all(os.environ.get(name) == value for name, value in limits.items())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--isa', choices=CPU_LEVELS, help='hold op, torch and oneDNN to this level')
    parser.add_argument(
        '--threads', type=int, nargs='+', help='CPU threads to measure (default: 1 and all cores)'
    )
    parser.add_argument(
        '--output', type=Path, default=tuning_tables.directory(), help='folder of the table'
    )
    parser.add_argument('--minutes', type=float, help='stop adding cells then')
    parser.add_argument(
        '--busy', action='store_true', help='measure although the machine is not idle'
    )
    args = parser.parse_args()
    if args.device == 'cuda' and (args.isa or args.threads):
        parser.error('--isa and --threads are about the CPU')
    if args.threads and min(args.threads) < 1:
        parser.error(f'--threads {min(args.threads)} is below 1')
    return args


def command_of(args: argparse.Namespace) -> str:
    """What to run to measure the same; where the table went is left out."""
    command = ['python', '-m', 'unireplknet_ops.tune', '--device', args.device]
    for name in ('isa', 'threads', 'minutes'):
        value = getattr(args, name)
        if value is not None:
            values = value if isinstance(value, list) else [value]
            command += [f'--{name}', *map(str, values)]
    return shlex.join(command)


def run(args: argparse.Namespace) -> int:
    if args.isa and not is_held_to(args.isa):
        return run_at_level(args.isa)
    missing = library.missing(args.device)
    if missing:
        print(f'Nothing to tune: the op cannot run on {args.device}: {missing}', file=sys.stderr)
        return 1
    load = os.getloadavg()[0]
    if args.device == 'cpu' and load > 1 and not args.busy:
        print(
            f'The load of this machine is {load:.1f}: what would be measured is the other work too. '
            'Wait until it is idle, or give --busy',
            file=sys.stderr,
        )
        return 1
    torch.backends.cudnn.allow_tf32 = False
    threads = [1] if args.device == 'cuda' else sorted({1, os.cpu_count()})
    try:
        table = measure_table(
            args.device,
            GRIDS[args.device],
            args.threads or threads,
            args.minutes or (9 if args.device == 'cpu' else 3),
            command_of(args),
        )
    except WrongResultError as error:
        print(f'The op is wrong, so no table is written: {error}', file=sys.stderr)
        return 1
    path = tuning_tables.write(table, args.output)
    dispatch.clear_cache()
    print(f'Wrote {path}, {path.stat().st_size / 1000:.0f} kB')
    return 0


def main() -> int:
    args = parse_args()
    try:
        return run(args)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
