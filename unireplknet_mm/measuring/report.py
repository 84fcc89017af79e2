"""What was measured, as Markdown, CSV, JSON, a picture and a section of a page."""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.files import replacing, write_text
from unireplknet_mm.measuring.benchmark import Result, describe, speed_up
from unireplknet_mm.measuring.paper import ImageNetFigures, figures_of
from unireplknet_mm.measuring.variants import Variant
from unireplknet_ops.benchmark_report import table

COLUMNS = (
    *(
        'group',
        'model',
        'form',
        'mode',
        'batch_size',
        'height',
        'width',
        'dtype',
        'layout',
        'compiled',
    ),
    *('implementation', 'threads', 'device', 'setting', 'parameters', 'images_per_second'),
    *('p50_ms', 'p95_ms', 'spread', 'rounds', 'first_ms', 'peak_memory_bytes', 'difference'),
    *('agrees', 'left_out'),
)
PAGE = """# How fast is it?

Written by `tools/benchmark.py`, a section a command. Models take turns in one process; times are medians.
"""


def markdown(results: Sequence[Result]) -> str:
    """A table for each group; the first row is what the others are compared with."""
    parts = []
    for title in dict.fromkeys(result.group for result in results):
        of_group = [result for result in results if result.group == title]
        parts.append(f'{title}:\n\n{_group_table(of_group)}')
    return '\n\n'.join(parts)


def _group_table(results: Sequence[Result]) -> str:
    compiled = any(result.variant.compiled for result in results)
    columns = [
        '',
        'parameters',
        'images/s',
        'p50',
        'p95',
        'spread',
        'peak memory',
        'times the first',
    ]
    if compiled:
        columns.append('first call')
    rows = []
    for result in results:
        row = [describe(result.variant), _millions(result.parameters)]
        if result.left_out or not result.seconds:
            rows.append([*row, result.left_out or 'not reached', *[''] * (len(columns) - 3)])
            continue
        row += [number(result.throughput), milliseconds(result.median), milliseconds(result.p95)]
        row += [f'{result.spread:.0%}', memory(result.peak_memory), compared(result, results[0])]
        if compiled:
            row.append(f'{result.first_seconds:.1f} s')
        rows.append(row)
    return table(columns, rows)


def compared(result: Result, baseline: Result) -> str:
    """A speed-up, or why there is none."""
    if result.is_wrong:
        return f'outputs differ by {result.difference:.1e}'
    ratio = speed_up(result, baseline)
    return f'{ratio:.2f}x' if ratio else '-'


def wrong_results(results: Iterable[Result]) -> list[str]:
    """A line for each variant that computes something else than its plain form."""
    return [
        f'{result.group}: {describe(result.variant)} differs from its plain form by '
        f'{result.difference:.1e} (relative)'
        for result in results
        if result.is_wrong
    ]


def as_dict(result: Result) -> dict[str, Any]:
    """The values of `COLUMNS`."""
    variant = result.variant._asdict()
    height, width = variant.pop('size')
    timed = bool(result.seconds)
    values = dict(
        group=result.group,
        **variant,
        height=height,
        width=width,
        parameters=result.parameters,
        images_per_second=result.throughput,
        p50_ms=1e3 * result.median if timed else None,
        p95_ms=1e3 * result.p95 if timed else None,
        spread=result.spread,
        rounds=len(result.seconds),
        first_ms=None if result.first_seconds is None else 1e3 * result.first_seconds,
        peak_memory_bytes=result.peak_memory,
        difference=result.difference if result.difference != math.inf else 'inf',
        agrees=result.agrees,
        left_out=result.left_out,
    )
    return {column: values[column] for column in COLUMNS}


def to_csv(results: Iterable[Result]) -> str:
    """One line a variant, under `COLUMNS`; empty where there is no value."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(as_dict(result) for result in results)
    return stream.getvalue()


def to_json(results: Iterable[Result], machine: dict[str, str], command: str) -> str:
    """Machine, command, and every time of every variant."""
    measurements = [as_dict(result) | {'seconds': result.seconds} for result in results]
    content = dict(machine=machine, command=command, measurements=measurements)
    return json.dumps(content, indent=1, allow_nan=False)


def check_picture(path: Path, variants: Iterable[Variant]) -> None:
    """Refuse a picture that `draw` could not make of what will be measured.

    Raises:
        ArgumentError: no model has a published accuracy, or matplotlib cannot write that kind of file.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lstrip('.').lower() not in kinds:
        raise ArgumentError(f'no picture at {path}: its name has to end in .{", .".join(kinds)}')
    if not any(map(_published, variants)):
        raise ArgumentError(
            'no picture: none of the models has a published accuracy at that resolution'
        )


def _published(variant: Variant) -> ImageNetFigures | None:
    """The figures of a variant that a picture can show."""
    return figures_of(variant.model, variant.size[0]) if variant.mode == 'forward' else None


def draw(results: Iterable[Result], path: Path, title: str) -> None:
    """Top-1 accuracy, by the papers, against measured throughput; a line a family.

    Raises:
        ArgumentError: no model that was measured has a published accuracy.
    """
    from matplotlib.figure import Figure

    families: dict[str, list[tuple[float, float, str]]] = {}
    for result in results:
        figures = _published(result.variant)
        if figures and result.agrees and result.seconds:
            point = (result.throughput, figures.top1, figures.label)
            families.setdefault(figures.family, []).append(point)
    if not families:
        raise ArgumentError(
            'no picture: no measured model has a published accuracy at that resolution'
        )
    figure = Figure(figsize=(9, 6), layout='constrained')
    axes = figure.add_subplot()
    for family, points in families.items():
        points.sort()
        ours = family.startswith('UniRepLKNet')
        (line,) = axes.plot(
            [x for x, _, _ in points],
            [y for _, y, _ in points],
            marker='o',
            linewidth=2.5 if ours else 1,
            color='crimson' if ours else None,
            zorder=3 if ours else 2,
            label=family,
        )
        for x, y, label in points:
            axes.annotate(
                label if ours else label.removeprefix(family).lstrip('- '),
                (x, y),
                textcoords='offset points',
                xytext=(4, 4) if ours else (-4, -9),
                fontsize=7,
                color=line.get_color(),
            )
    axes.set_xscale('log')
    axes.set_xlabel('images/s, measured here')
    axes.set_ylabel('ImageNet top-1, %, by the papers')
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3, which='both')
    axes.legend(fontsize=7)
    with replacing(path, keep_extension=True) as partial:
        figure.savefig(partial, dpi=150)


def update_page(path: Path, name: str, text: str) -> None:
    """Put a section into a page, in the place of the one of that name, or at the end.

    Args:
        path: a Markdown file; begun if it is not there.
        name: of the section, which comments around it carry.
        text: Markdown.
    """
    page = path.read_text(encoding='utf-8') if path.exists() else PAGE
    begin, end = f'<!-- benchmark: {name} -->', f'<!-- end of benchmark: {name} -->'
    section = f'{begin}\n{text.strip()}\n{end}'
    pattern = re.compile(f'{re.escape(begin)}.*?{re.escape(end)}', re.DOTALL)
    if pattern.search(page):
        page = pattern.sub(lambda match: section, page)
    else:
        page = f'{page.rstrip()}\n\n{section}\n'
    write_text(path, page)


def machine_line(machine: dict[str, str]) -> str:
    return ', '.join(f'{key} {value}' for key, value in machine.items())


def number(value: float | None) -> str:
    """Three digits that count: '0.123', '12.3', '1234'."""
    if value is None:
        return '-'
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'


def milliseconds(seconds: float | None) -> str:
    return '-' if seconds is None else f'{number(1e3 * seconds)} ms'


def memory(size: int | None) -> str:
    return '-' if size is None else f'{size / 2**20:.0f} MiB'


def _millions(count: int | None) -> str:
    return '-' if count is None else f'{count / 1e6:.1f} M'
