"""Measure a device and write its tuning table, from which `dispatch` chooses.

    python -m unireplknet_ops.tune                  # this CPU: about 5 minutes
    python -m unireplknet_ops.tune --isa avx2       # as if the CPU had no more than AVX2
    python -m unireplknet_ops.tune --device cuda    # the current GPU: about 2 minutes
    python -m unireplknet_ops.tune --output DIR     # not into the package (UNIREPLKNET_TUNING_DIR)

A cell times forward, gradient of the input and gradient of the weight of the op and of torch's native
convolution, in turn in one process (`measure` says how), on a CPU in processor time on one thread. Where one
of the two is three times as fast as the other and a call is long, it is not repeated. Cells whose arithmetic
is above a limit are left out, and so is what is not reached in `--minutes`: the nearest one speaks for them.
A wrong result ends the run and nothing is written. Run it on an idle machine; a check of the load insists on
that.

With `--isa` both sides are held to that instruction set: the op by UNIREPLKNET_CPU_ISA, torch and oneDNN by
ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA, so that the table is that of a processor without the rest.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

import torch

from unireplknet_ops import dispatch, library, tuning_tables
from unireplknet_ops.errors import UserError
from unireplknet_ops.measure import (
    Shape,
    Tensors,
    Timer,
    WrongResultError,
    make_pool,
    thread_count,
)
from unireplknet_ops.tuning_tables import CPU_LEVELS, PASSES, Cell, TuningTable

# Both kinds of kernels of the network; a dilated one stands for its size at any dilation.
KERNELS = (*((size, 1) for size in (3, 5, 7, 9, 13, 17, 31)), (3, 3), (5, 2), (7, 2))
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

    `maps` are (batch, channels, height, width), each with several times the elements of the one before.
    `most_products` limits taps times elements, and so the time of a cell; `budget` is the seconds spent on
    repeating one call.
    """

    dtypes: tuple[torch.dtype, ...]
    maps: tuple[tuple[int, int, int, int], ...]
    most_products: float
    budget: float


GRIDS = dict(
    cpu=Grid(
        dtypes=(torch.float32, torch.bfloat16, torch.float16, torch.float64),
        maps=(
            (1, 96, 7, 7),
            (1, 384, 7, 7),
            (1, 384, 14, 14),
            (1, 384, 28, 28),
            (4, 384, 28, 28),
            (4, 384, 56, 56),
        ),
        most_products=1.3e8,
        budget=0.02,
    ),
    cuda=Grid(
        dtypes=(torch.float32, torch.float16, torch.bfloat16),
        maps=(
            (1, 384, 7, 7),
            (1, 384, 14, 14),
            (1, 384, 28, 28),
            (4, 384, 28, 28),
            (16, 384, 28, 28),
            (64, 384, 28, 28),
        ),
        most_products=6e9,
        budget=0.002,
    ),
)


def grid_shapes(grid: Grid, dtype: torch.dtype) -> list[Shape]:
    """The cells within the limits, the quickest first."""
    shapes = [
        Shape(kernel_size, dilation, height, width, batch, channels, dtype)
        for kernel_size, dilation in KERNELS
        for batch, channels, height, width in grid.maps
    ]
    return sorted(
        (shape for shape in shapes if shape.flops / 2 <= grid.most_products),
        key=lambda shape: shape.flops,
    )


def measure_cell(shape: Shape, tensors: Tensors, timer: Timer) -> Cell:
    """Time the three passes of one shape.

    Raises:
        WrongResultError: the op computed something else.
    """
    ratios = []
    for name in PASSES:
        calls = [lambda name=name: tensors.native(name), lambda name=name: tensors.op(name)]
        native_result, native_first = timer.first_call(calls[0])
        result, op_first = timer.first_call(calls[1])
        tensors.check(name, result, native_result)
        firsts = [native_first, op_first]
        is_clear = max(firsts) > max(CLEAR_SECONDS, CLEAR * min(firsts))
        native, op = firsts if is_clear else timer.time(calls, firsts)
        ratios.append(float(f'{native / op:.3g}'))
    return Cell(*shape[:-1], *ratios)


def measure_table(device: str, grid: Grid, minutes: float, command: str) -> TuningTable:
    """Measure the grid, an equal share of the time for each dtype and layout; progress goes to stdout."""
    clock = time.process_time if device == 'cpu' else time.perf_counter
    timer = Timer(device, grid.budget, least=2, most=20, once_above=0.2, clock=clock)
    cells: dict[tuple[str, str], tuple[Cell, ...]] = {}
    start = time.monotonic()
    share = 60 * minutes / (len(grid.dtypes) * 2)
    with thread_count(1), torch.no_grad():
        for dtype in grid.dtypes:
            shapes = grid_shapes(grid, dtype)
            pool = make_pool(shapes, dtype, device)
            for channels_last in (False, True):
                measured = []
                deadline = start + share * (len(cells) + 1)
                for shape in shapes:
                    if time.monotonic() > deadline:
                        break
                    tensors = Tensors(shape, pool, channels_last)
                    measured.append(measure_cell(shape, tensors, timer))
                group = tuning_tables.dtype_name(dtype), tuning_tables.layout_name(channels_last)
                cells[group] = tuple(sorted(measured))
                won = [sum(column) for column in zip(*(c.winners for c in measured), strict=True)]
                print(
                    f'{" ".join(group)}: {len(measured)} of {len(shapes)} cells, the op not slower in '
                    f'{dict(zip(PASSES, won, strict=False))}, {time.monotonic() - start:.0f} s',
                    flush=True,
                )
    return TuningTable(
        device_type=device,
        level=tuning_tables.device_level(device),
        device=tuning_tables.device_name(device),
        machine=tuning_tables.machine(),
        torch=torch.__version__,
        date=datetime.now(timezone.utc).strftime('%Y-%m-%d'),
        command=command,
        cells=cells,
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
        '--output', type=Path, default=tuning_tables.directory(), help='folder of the table'
    )
    parser.add_argument('--minutes', type=float, help='stop adding cells then')
    parser.add_argument(
        '--busy', action='store_true', help='measure although the machine is not idle'
    )
    args = parser.parse_args()
    if args.device == 'cuda' and args.isa:
        parser.error('--isa is about the CPU')
    return args


def command_of(args: argparse.Namespace) -> str:
    """What to run to measure the same; where the table went is left out."""
    command = ['python', '-m', 'unireplknet_ops.tune', '--device', args.device]
    for name in ('isa', 'minutes'):
        value = getattr(args, name)
        if value is not None:
            command += [f'--{name}', str(value)]
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
    try:
        table = measure_table(
            args.device,
            GRIDS[args.device],
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
