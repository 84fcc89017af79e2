"""The paper's Tables 1, 5 and 18, measured on this machine, beside its figures; a matrix of settings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch

from unireplknet_mm.measuring import catalogue, paper
from unireplknet_mm.measuring.benchmark import Group, Result, speed_up
from unireplknet_mm.measuring.catalogue import Build
from unireplknet_mm.measuring.report import compared, memory, milliseconds, number
from unireplknet_mm.measuring.variants import DTYPES, LAYOUTS, Variant
from unireplknet_ops.benchmark_report import table
from unireplknet_ops.measure import Shape, Tensors, Timer, WrongResultError, make_pool, thread_count

SINGLE_KERNEL = 'single large-kernel convolution'
DILATED_REPARAM = 'Dilated Reparam Block'
# Above this, a setting of a user's costs too much.
LARGEST_FACTOR = 1.2
LAYERS = 24  # of Table 1
INFERENCE_SETTINGS = (
    '',
    'no_grad',
    'requires_grad_(False)',
    'requires_grad_(False), no_grad',
    'built in inference_mode',
)
TRAINING_SETTINGS = (
    '',
    'frozen_stages=1',
    'frozen_stages=2',
    'frozen_stages=4',
    'norm_eval',
    'backbone.requires_grad_(False)',
)


class Plan(NamedTuple):
    """What is to be measured: the groups, what builds their models, and who is left out and why."""

    groups: tuple[Group, ...]
    builds: dict[str, Build]
    left_out: tuple[str, ...] = ()


def table_5_plan(
    batch_size: int | None, dtype: str, layouts: Sequence[str], threads: int, device: str
) -> Plan:
    """Every model of `paper.TABLE_5` that can be built here, in deploy form, those of 384² apart.

    Args:
        batch_size: default: the paper's 128 on a GPU; on a CPU 8, and 1 at 384².
        dtype, layouts, threads, device: as in `Variant`.
    """
    left_out = [paper.NOT_IN_TABLE_5]
    available = list(paper.TABLE_5)
    if not catalogue.has_timm():
        available = [row for row in paper.TABLE_5 if catalogue.is_own(row.model)]
        missing = ', '.join(row.label for row in paper.TABLE_5 if row not in available)
        left_out.append(f'{missing} ({catalogue.HOW_TO_GET_TIMM})')
    builds = {row.model: catalogue.find_model(row.model) for row in available}
    groups = []
    for at_384 in (False, True):
        count = batch_size or (128 if device == 'cuda' else 1 if at_384 else 8)
        rows = [row for row in available if (row.resolution == 384) == at_384]
        # UniRepLKNet-T or -S first: what the others are compared with.
        rows.sort(key=lambda row: row.label not in ('UniRepLKNet-T', 'UniRepLKNet-S‡'))
        common = dict(batch_size=count, dtype=dtype, threads=threads, device=device)
        variants = tuple(
            Variant(row.model, size=(row.resolution,) * 2, layout=layout, **common)
            for row in rows
            for layout in layouts
        )
        where = '384²' if at_384 else '224² and 256²'
        groups.append(Group(f'Table 5, {where}, batch {count}, {dtype}', variants))
    return Plan(tuple(groups), builds, tuple(left_out))


def table_5_markdown(results: Sequence[Result], left_out: Iterable[str]) -> str:
    """The paper's order; 'over' columns are the throughput over that of UniRepLKNet-T, at 384² -S."""
    measured = {(r.variant.model, r.variant.size[0]): r for r in results}
    references = {row.label: row for row in paper.TABLE_5}
    rows = []
    for row in paper.TABLE_5:
        result = measured.get((row.model, row.resolution))
        reference = references['UniRepLKNet-S‡' if row.resolution == 384 else 'UniRepLKNet-T']
        cells = [row.label, f'{row.resolution}²', f'{row.top1:.1f}', number(row.throughput)]
        cells.append(f'{row.throughput / reference.throughput:.2f}x' if row.throughput else '-')
        if result is None or not result.seconds:
            reason = result.left_out if result and result.left_out else 'not measured'
            rows.append([*cells, '-', reason, '-', '-'])
            continue
        baseline = measured[reference.model, reference.resolution]  # the first of its group
        parameters = f'{result.parameters / 1e6:.1f} M'
        cells += [parameters, number(result.throughput), compared(result, baseline)]
        rows.append([*cells, memory(result.peak_memory)])
    columns = ['model', 'input', 'top-1, papers', 'images/s, paper, A100', 'over T or S‡, paper']
    columns += ['parameters', 'images/s, here', 'over T or S‡, here', 'peak memory, here']
    notes = ''.join(f'\n\nLeft out: {reason}.' for reason in left_out)
    return table(columns, rows) + notes


def table_18_plan(
    batch_size: int | None, dtype: str, layouts: Sequence[str], threads: int, device: str
) -> Plan:
    """A training step of UniRepLKNet-S with and without the dilated branches.

    Args:
        batch_size: default: 64 on a GPU (the paper's 512 do not fit in float32), 8 on a CPU.
        dtype, layouts, threads, device: as in `Variant`.
    """
    builds = {
        DILATED_REPARAM: catalogue.find_model('unireplknet_s'),
        SINGLE_KERNEL: catalogue.find_model('unireplknet_s', branches={13: ()}),
    }
    count = batch_size or (64 if device == 'cuda' else 8)
    common = dict(batch_size=count, dtype=dtype, threads=threads, device=device)
    variants = tuple(
        Variant(name, 'train', 'step', layout=layout, **common)
        for name in builds
        for layout in layouts
    )
    return Plan((Group(f'Table 18, batch {count}, {dtype}', variants),), builds)


def table_18_markdown(results: Sequence[Result]) -> str:
    """Training form over single-kernel form, in the paper and here."""
    columns = ['UniRepLKNet-S, training', 'peak memory, paper', 'images/s, paper, 8 A100']
    columns += ['peak memory, here', 'images/s, here']
    rows = []
    measured = {result.variant.model: result for result in results}
    for figures in paper.TABLE_18:
        result = measured.get(figures.label)
        if result is None or not result.seconds:
            reason = (result and result.left_out) or 'not measured'
            rows.append([figures.label, *[''] * 3, reason])
            continue
        row = [figures.label, f'{figures.gigabytes} GB', f'{figures.throughput}']
        rows.append([*row, memory(result.peak_memory), number(result.throughput)])
    if len(measured) == 2 and (ratio := speed_up(*(measured[f.label] for f in paper.TABLE_18))):
        block, single = paper.TABLE_18
        ratios = ['the first over the second', f'{block.gigabytes / single.gigabytes:.2f}']
        ratios.append(f'{block.throughput / single.throughput:.2f}')
        peaks = [measured[figures.label].peak_memory for figures in paper.TABLE_18]
        ratios.append(f'{peaks[0] / peaks[1]:.2f}' if all(peaks) else '-')
        rows.append([*ratios, f'{ratio:.2f}'])
    return table(columns, rows)


def settings_plan(
    model: str, build: Build, batch_size: int | None, threads: int, device: str
) -> Plan:
    """Settings that should cost nothing: those of inference in every dtype and layout, and of training.

    Args:
        model: its name.
        build: builds it.
        batch_size: the plain one; default 8 in inference and half of it in training.
        threads, device: as in `Variant`.
    """
    count = batch_size or 8
    common = dict(threads=threads, device=device)
    inference = []
    for dtype in DTYPES:
        plain = Variant(model, dtype=dtype, batch_size=count, **common)
        for layout in LAYOUTS:
            ways = [plain._replace(layout=layout, setting=name) for name in INFERENCE_SETTINGS]
            inference += ways
        inference += [plain._replace(batch_size=odd) for odd in odd_sizes(count)]
    half = max(1, count // 2)
    plain = Variant(model, 'train', 'step', half, **common)
    training = [plain._replace(setting=name) for name in TRAINING_SETTINGS]
    training += [plain._replace(layout='channels_last')]
    training += [plain._replace(dtype='bf16', layout=layout) for layout in LAYOUTS]
    training += [plain._replace(batch_size=odd) for odd in odd_sizes(half)]
    groups = (
        Group(f'Settings of inference, {model}', tuple(inference)),
        Group(f'Settings of a training step, {model}', tuple(training)),
    )
    return Plan(groups, {model: build})


def odd_sizes(batch_size: int) -> list[int]:
    """Batch sizes that are no power of two, near the plain one."""
    return [size for size in (batch_size - 1, batch_size + 1) if size > 1]


def settings_markdown(results: Sequence[Result]) -> str:
    """Time an image of each setting over that of its plain case; above 1.2 in bold.

    The plain case has the dtype of the setting, and for that of a 16-bit dtype it is the one of float32.
    """
    parts = []
    for title in dict.fromkeys(result.group for result in results):
        of_group = [result for result in results if result.group == title]
        rows = []
        for result in of_group:
            variant = result.variant
            factor = speed_up(_plain_case(result, of_group), result)  # of images a second
            text = (
                result.left_out or compared(result, result) if factor is None else f'{factor:.2f}'
            )
            if factor is not None and factor > LARGEST_FACTOR:
                text = f'**{text}**'
            median = result.median and result.median / variant.batch_size
            name = variant.setting or 'plain'
            row = [variant.dtype, variant.layout, str(variant.batch_size), name]
            rows.append([*row, milliseconds(median), text])
        columns = ['dtype', 'layout', 'batch', 'setting', 'an image', 'over the plain case']
        parts.append(f'{title}:\n\n{table(columns, rows)}')
    return '\n\n'.join(parts)


def _plain_case(result: Result, of_group: Sequence[Result]) -> Result:
    variant = result.variant
    is_plain = variant == of_group[0].variant._replace(dtype=variant.dtype)
    dtype = 'fp32' if is_plain else variant.dtype
    wanted = of_group[0].variant._replace(dtype=dtype)
    return next(other for other in of_group if other.variant == wanted)


class StackTime(NamedTuple):
    """Seconds of `LAYERS` depthwise convolutions of one size; `left_out` tells why there are none."""

    resolution: int
    kernel_size: int
    native: float | None = None
    op: float | None = None
    left_out: str | None = None


def measure_table_1(
    batch_size: int,
    dtype: str,
    threads: int,
    device: str,
    progress: Callable[[str, float | None], None],
    slowest: float = 10.0,
    channels: int = 384,
    resolutions: Sequence[int] = tuple(paper.TABLE_1),
    kernel_sizes: Sequence[int] = paper.TABLE_1_KERNEL_SIZES,
) -> Iterator[StackTime]:
    """Time one depthwise convolution of each size, op and torch's in turn, as often as there are layers.

    The layers of a stack are alike, so the time of one is multiplied.

    Args:
        batch_size: the paper's is 64, much for a CPU.
        dtype, threads, device: as in `Variant`.
        progress: told what is measured.
        slowest: a native call expected to take more seconds, by the kernel before it, is left out.
        channels, resolutions, kernel_sizes: the paper's.
    """
    timer = Timer(device, budget=0.5, most=10, once_above=2.0)
    with thread_count(threads), torch.inference_mode():
        for resolution in resolutions:
            rate = None
            for kernel_size in kernel_sizes:
                size = (resolution, resolution)
                shape = Shape(kernel_size, 1, *size, batch_size, channels, DTYPES[dtype])
                progress(f'Table 1: {shape}', None)
                tensors = Tensors(shape, make_pool([shape], DTYPES[dtype], device), False)
                calls = {'op': lambda tensors=tensors: tensors.op('forward')}
                if rate is None or shape.flops / rate <= slowest:
                    calls['native'] = lambda tensors=tensors: tensors.native('forward')
                firsts = {name: timer.first_call(call) for name, call in calls.items()}
                native = firsts.get('native', (None, None))[0]
                try:
                    tensors.check('forward', firsts['op'][0], native)
                except WrongResultError as error:
                    yield StackTime(resolution, kernel_size, left_out=str(error))
                    continue
                first_seconds = [seconds for _, seconds in firsts.values()]
                firsts.clear()
                seconds = dict(
                    zip(calls, timer.time(list(calls.values()), first_seconds), strict=True)
                )
                rate = shape.flops / seconds['native'] if 'native' in seconds else rate
                times = {name: LAYERS * value for name, value in seconds.items()}
                yield StackTime(resolution, kernel_size, **times)


def table_1_markdown(times: Sequence[StackTime], batch_size: int) -> str:
    """Milliseconds as in the paper, PyTorch's and the op's, and how many times faster the op is."""
    kernel_sizes = list(dict.fromkeys(time.kernel_size for time in times))
    rows = []
    for resolution in dict.fromkeys(time.resolution for time in times):
        cells = {time.kernel_size: time for time in times if time.resolution == resolution}
        figures = paper.TABLE_1[resolution]
        columns = [paper.TABLE_1_KERNEL_SIZES.index(size) for size in kernel_sizes]
        of_paper = [(figures['pytorch'][i], figures['ours'][i]) for i in columns]
        here = [cells.get(size, StackTime(resolution, size)) for size in kernel_sizes]
        name = f'{resolution}²'
        rows.append([name, 'paper, PyTorch, ms', *(f'{native:g}' for native, _ in of_paper)])
        rows.append([name, 'paper, its op, ms', *(f'{op:g}' for _, op in of_paper)])
        rows.append([name, 'paper, times faster', *(f'{n / op:.1f}x' for n, op in of_paper)])
        rows.append([name, 'here, PyTorch, ms', *(_stack_ms(time.native) for time in here)])
        rows.append([name, 'here, the op, ms', *(_stack_ms(time.op) for time in here)])
        ratios = [f'{t.native / t.op:.1f}x' if t.native and t.op else '-' for t in here]
        rows.append([name, 'here, times faster', *ratios])
    text = table(['map', '', *(f'K={size}' for size in kernel_sizes)], rows)
    wrong = ''.join(f'\n\nWrong: {time.left_out}' for time in times if time.left_out)
    return (
        f'Table 1: {LAYERS} depthwise convolutions, paper (64, 384, R, R), here '
        f'({batch_size}, 384, R, R):\n\n{text}{wrong}'
    )


def _stack_ms(seconds: float | None) -> str:
    return '-' if seconds is None else number(1e3 * seconds)
