"""Measure the op against torch's native convolution, and print it as tables.

    python -m unireplknet_ops.benchmark --markdown --output FILE    # about 25 minutes on 2 cores
    python -m unireplknet_ops.benchmark --quick                     # about 3 minutes
    python -m unireplknet_ops.benchmark --device cuda --markdown    # about 4 minutes on an H200

The shapes are those of UniRepLKNet at 224² and in detection, on CUDA also those of the paper's Table 1.
Forward, gradient of the input and gradient of the weight are timed in NCHW and in channels_last, op and
native in turn (`measure` says how), beside the rate of torch's matrix product in the same run. No
speed-up is printed for a shape where the op computed something wrong: its row says so and the exit status
is 1. A call that must be expected to take longer than `--slowest` seconds, judged by the same kernel on a
smaller map, is left out, and counted in the report; so is what is left when `--minutes` are over.

Run it on an idle machine. TF32 is off.
"""

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from unireplknet_ops import library, tuning_tables
from unireplknet_ops.benchmark_report import Report
from unireplknet_ops.errors import UserError
from unireplknet_ops.files import check_replaceable
from unireplknet_ops.measure import (
    Shape,
    Tensors,
    Timer,
    WrongResultError,
    make_pool,
    matmul_rate,
    thread_count,
)
from unireplknet_ops.peers import Peer, cuda_peers
from unireplknet_ops.results import Measurement, describe_machine, write_json
from unireplknet_ops.tuning_tables import PASSES

# The kernels of the network, and the dilated branches beside its K = 13 (the 5x5 is no dilated one).
KERNELS = (*((size, 1) for size in (3, 5, 7, 9, 13, 17, 25, 31)), (3, 3), (3, 4), (3, 5), (7, 2))
CPU_MAPS = ((7, 7), (14, 14), (28, 28), (56, 56), (50, 84), (100, 168))
TABLE_1_MAPS = ((16, 16), (32, 32), (64, 64))
BACKBONE_KERNEL = (13, 1)  # comes first on a GPU, where time may be short
TABLE_1_KERNELS = tuple((size, 1) for size in (3, 5, 7, 9, 13, 17, 21, 25, 31))
DETECTION_MAPS = ((50, 84), (100, 168), (200, 336))
DETECTION_KERNELS = ((3, 1), (7, 1), (13, 1), (31, 1), (3, 3), (7, 2))
LAYOUTS = ('contiguous', 'channels_last')


class Plan(NamedTuple):
    """A set of shapes, measured at each number of threads, the most telling first."""

    title: str
    shapes: tuple[Shape, ...]
    threads: tuple[int, ...]


def cpu_plan(quick: bool) -> list[Plan]:
    def shapes(maps, kernels, channels, batches, dtype):
        return tuple(
            Shape(*kernel, *size, batch, count, dtype)
            for kernel in kernels
            for size in maps
            for count in channels
            for batch in batches
        )

    if quick:
        maps, kernels = ((7, 7), (28, 28), (50, 84)), ((3, 1), (7, 1), (13, 1), (31, 1), (3, 3))
        dtypes, threads = (torch.float32, torch.bfloat16), (1, 2)
        channels, batches = (64,), (1, 8)
    else:
        maps, kernels = CPU_MAPS, KERNELS
        dtypes, threads = (torch.float32, torch.bfloat16), (2, 1)
        channels, batches = (64, 384), (1, 8)
    return [
        Plan(
            tuning_tables.dtype_name(dtype),
            shapes(maps, kernels, channels, batches, dtype),
            (count,),
        )
        for count in threads
        for dtype in dtypes
    ]


def cuda_plan(quick: bool) -> list[Plan]:
    dtypes = (torch.bfloat16, torch.float32, torch.float16)
    other_kernels = [
        kernel
        for kernel in (((7, 1), (31, 1)) if quick else TABLE_1_KERNELS)
        if kernel != BACKBONE_KERNEL
    ]
    detection_kernels = ((13, 1),) if quick else DETECTION_KERNELS
    widths = (96, 384) if quick else (96, 192, 384, 768)
    plans = []
    for title, kernels in (('Table 1, K = 13', [BACKBONE_KERNEL]), ('Table 1', other_kernels)):
        for dtype in dtypes:
            table_1 = tuple(
                Shape(*kernel, *size, 64, 384, dtype) for kernel in kernels for size in TABLE_1_MAPS
            )
            plans.append(Plan(f'{title}, {tuning_tables.dtype_name(dtype)}', table_1, (1,)))
    for dtype in dtypes:
        name = tuning_tables.dtype_name(dtype)
        detection = tuple(
            Shape(*kernel, *size, batch, channels, dtype)
            for kernel in detection_kernels
            for size in DETECTION_MAPS
            for channels in widths
            for batch in (1, 2, 8)
        )
        plans.append(Plan(f'Detection, {name}', detection, (1,)))
    return plans


class Benchmark:
    """Measures plans on a device within a time limit.

    Args:
        device: 'cpu' or 'cuda'.
        budget: seconds to spend on repeating one call.
        slowest: a call expected to take longer is left out.
    """

    def __init__(self, device: str, budget: float, slowest: float):
        self.device = device
        self.slowest = slowest
        self.deadline = math.inf
        self.timer = Timer(device, budget, once_above=5 * budget)
        self.measurements: list[Measurement] = []
        self._rates: dict[
            tuple, float
        ] = {}  # FLOP/s of the largest problem so far, to foresee times

    def run(self, plan: Plan, deadline: float) -> list[Measurement]:
        """Measure every shape of a plan, small ones first.

        Args:
            plan: what to measure.
            deadline: of `time.monotonic()`; what comes later is left out.

        Returns:
            What was measured, which also joins `measurements`.
        """
        first = len(self.measurements)
        self.deadline = deadline
        for threads in plan.threads:
            with thread_count(threads):
                for dtype in dict.fromkeys(shape.dtype for shape in plan.shapes):
                    shapes = [shape for shape in plan.shapes if shape.dtype == dtype]
                    pool = make_pool(shapes, dtype, self.device)
                    for shape in sorted(shapes, key=lambda shape: shape.flops):
                        self.measurements += self._measure(shape, pool, threads)
        return self.measurements[first:]

    def _measure(self, shape: Shape, pool: torch.Tensor, threads: int) -> Iterator[Measurement]:
        tensors = {layout: Tensors(shape, pool, layout == 'channels_last') for layout in LAYOUTS}
        candidates: dict[str, Peer] = {}
        for layout, of_layout in tensors.items():
            candidates[f'native {layout}'] = of_layout.native
            candidates[f'op {layout}'] = of_layout.op
        if self.device == 'cuda':
            candidates |= cuda_peers(tensors['contiguous'])
        for name in PASSES:
            yield self._measure_pass(Measurement(shape, name, threads), candidates, tensors)

    def _measure_pass(
        self, measurement: Measurement, candidates: dict[str, Peer], tensors: dict[str, Tensors]
    ) -> Measurement:
        shape, name = measurement.shape, measurement.name
        natives: dict[str, torch.Tensor] = {}
        first_seconds = {}
        with torch.no_grad():
            for candidate, call in candidates.items():
                reason = self._reason_to_leave_out(candidate, measurement)
                if reason:
                    measurement.left_out[candidate] = reason
                    continue
                try:
                    result, first_seconds[candidate] = self.timer.first_call(lambda: call(name))  # noqa: B023
                    implementation, _, layout = candidate.partition(' ')
                    if implementation == 'native':
                        natives[layout] = result
                    else:  # the peers take NCHW maps
                        layout = layout if implementation == 'op' else 'contiguous'
                        tensors[layout].check(name, result, natives.get(layout))
                except WrongResultError as error:
                    measurement.left_out[candidate] = 'wrong result'
                    first_seconds.pop(candidate, None)
                    if implementation == 'op':
                        measurement.wrong = str(error)
                except (RuntimeError, NotImplementedError, ValueError) as error:
                    measurement.left_out[candidate] = str(error).splitlines()[0]
                    if candidate.startswith('op '):
                        measurement.wrong = f'{name} of {shape} failed: {error}'
            natives.clear()
            timed = list(first_seconds)
            calls = [lambda call=candidates[candidate]: call(name) for candidate in timed]
            seconds = self.timer.time(calls, [first_seconds[candidate] for candidate in timed])
        for candidate, value in zip(timed, seconds, strict=True):
            measurement.seconds[candidate] = value
            self._rates[self._kind(candidate, measurement)] = shape.flops / value
        return measurement

    def _kind(self, candidate: str, measurement: Measurement) -> tuple:
        shape = measurement.shape
        kernel = (shape.kernel_size, shape.dilation, shape.dtype)
        return candidate, *kernel, measurement.name, measurement.threads

    def _reason_to_leave_out(self, candidate: str, measurement: Measurement) -> str | None:
        if time.monotonic() > self.deadline:
            return 'out of time'
        rate = self._rates.get(self._kind(candidate, measurement))
        if rate and measurement.shape.flops / rate > self.slowest:
            return f'above {self.slowest:g} s'
        return None


def reference_rates(device: str, plans: Sequence[Plan]) -> dict[str, float]:
    """FLOP/s of torch's matrix product, by 'dtype threads'; on CUDA also the bytes/s of a copy."""
    size = 1536 if device == 'cpu' else 8192
    rates = {}
    for threads in sorted({count for plan in plans for count in plan.threads}):
        with thread_count(threads):
            for dtype in dict.fromkeys(shape.dtype for plan in plans for shape in plan.shapes):
                name = f'{tuning_tables.dtype_name(dtype)} {threads}'
                rates[name] = matmul_rate(device, dtype, size)
    if device == 'cuda':
        source = torch.randn(2**30, device=device)
        target = torch.empty_like(source)
        timer = Timer(device, budget=1.0)
        _, first = timer.first_call(lambda: target.copy_(source))
        rates['copy'] = 2 * source.nbytes / timer.time([lambda: target.copy_(source)], [first])[0]
    return rates


def left_out_counts(measurements: Iterable[Measurement]) -> Counter:
    return Counter(reason for m in measurements for reason in m.left_out.values())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--quick', action='store_true', help='fewer shapes, a few minutes')
    parser.add_argument('--output', type=Path, help='write every time as JSON')
    parser.add_argument('--markdown', action='store_true', help='print tables for README.md')
    parser.add_argument('--minutes', type=float, help='leave out what comes later')
    parser.add_argument('--slowest', type=float, help='seconds a call may be expected to take')
    args = parser.parse_args()
    on_cpu = args.device == 'cpu'
    args.minutes = args.minutes or (6 if args.quick else 27 if on_cpu else 4)
    args.slowest = args.slowest or ((0.5 if args.quick else 2.0) if on_cpu else 0.2)
    return args


def run(args: argparse.Namespace) -> int:
    start = time.monotonic()
    if args.output is not None:
        check_replaceable(args.output)  # before minutes are spent
    missing = library.missing(args.device)
    if missing:
        print(f'Nothing to measure: the op cannot run on {args.device}: {missing}', file=sys.stderr)
        return 1
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    machine = describe_machine(args.device)
    print(', '.join(f'{key} {value}' for key, value in machine.items()), flush=True)
    plans = (cpu_plan if args.device == 'cpu' else cuda_plan)(args.quick)
    rates = reference_rates(args.device, plans)
    for key, rate in rates.items():
        unit = 'GB/s' if key == 'copy' else 'GFLOP/s matrix product'
        print(f'  {key}: {rate / 1e9:.0f} {unit}', flush=True)
    budget = 0.02 if args.device == 'cuda' else 0.05 if args.quick else 0.1
    benchmark = Benchmark(args.device, budget, args.slowest)
    for i, plan in enumerate(
        plans
    ):  # each has its share of the time, and what the ones before left
        measured = benchmark.run(plan, start + 60 * args.minutes * (i + 1) / len(plans))
        print(
            f'{plan.title}, {plan.threads} threads: {len(measured)} passes, '
            f'{time.monotonic() - start:.0f} s',
            flush=True,
        )
        rows = [measurement.as_dict() for measurement in benchmark.measurements]
        write_json(args.output, dict(machine=machine, rates=rates, measurements=rows))

    report = Report(machine, rates, benchmark.measurements)
    print(report.markdown() if args.markdown else report.summary())
    for line in report.misses() if args.device == 'cpu' else []:
        print(line)
    for reason, count in left_out_counts(benchmark.measurements).items():
        print(f'not timed: {count} calls, {reason}')
    wrong = [measurement.wrong for measurement in benchmark.measurements if measurement.wrong]
    for message in wrong:
        print(f'WRONG: {message}', file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    args = parse_args()
    try:
        return run(args)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
