"""What an evaluation of the zoo came to: kept on the disk as it goes on, a table at the end.

A model's row is kept with the settings that it was taken with; another run takes over what it would have
measured the same way and goes on with the rest.
"""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from unireplknet_mm.errors import UserError
from unireplknet_mm.files import write_text
from unireplknet_mm.measuring.report import number
from unireplknet_mm.measuring.tasks import Task
from unireplknet_mm.measuring.variants import Prepared, Variant
from unireplknet_mm.zoo import ZooModel
from unireplknet_ops.benchmark_report import table
from unireplknet_ops.measure import timed_call

# The index's name of a figure -> the evaluators', and what makes it the same unit.
SCORES = {
    'Top 1 Accuracy': ('accuracy/top1', 1),
    'box AP': ('coco/bbox_mAP', 100),
    'mask AP': ('coco/segm_mAP', 100),
    'mIoU': ('mIoU', 1),
}
CALLS = 5


@dataclass
class Row:
    """What is known of a model.

    Args:
        name: the model's.
        weights: what was loaded; '' for random weights.
        settings: what the figures depend on beside the model.
        measured: by the index's names of figures.
        parameters, flops: of the deploy form, at the size that the paper counts at.
        images_per_second: of the deploy form, at that size.
        left_out: why there are no figures.
    """

    name: str
    weights: str
    settings: dict[str, str]
    measured: dict[str, float] = field(default_factory=dict)
    parameters: int | None = None
    flops: int | None = None
    images_per_second: float | None = None
    left_out: str | None = None


def figures_of(scores: Mapping[str, float]) -> dict[str, float]:
    """Of what evaluators report, the figures that the paper states, by the index's names."""
    return {
        figure: float(scores[score]) * factor
        for figure, (score, factor) in SCORES.items()
        if score in scores
    }


def throughput(build: Callable[[], Task], variant: Variant) -> float:
    """Images a second: the median of a few calls after the first."""
    prepared = Prepared(variant, build)
    prepared()
    seconds = [timed_call(prepared, variant.device)[1] for _ in range(CALLS)]
    return variant.batch_size / statistics.median(seconds)


def read_rows(path: Path) -> dict[str, Row]:
    """The rows of an earlier run, by the model's name; none where there was none.

    Raises:
        UserError: the file is something else.
    """
    if not path.exists():
        return {}
    try:
        return {row['name']: Row(**row) for row in json.loads(path.read_text(encoding='utf-8'))}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f'{path} does not hold the rows of an evaluation ({error}): remove it to begin anew'
        ) from error


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    write_text(path, json.dumps([asdict(row) for row in rows], indent=1) + '\n')


def markdown(models: Iterable[ZooModel], rows: Mapping[str, Row]) -> str:
    """A line a model: measured beside the paper's, in brackets what the paper states."""
    columns = ['model', 'weights', 'measured', 'paper', 'parameters', 'FLOPs', 'images/s']
    lines = []
    for model in models:
        row = rows.get(model.name)
        paper = _figures(model.figures)
        stated = (f'({model.parameters / 1e6:.1f} M)', f'({_giga(model.flops)})')
        if row is None:
            lines.append([model.name, model.weights, 'not reached', paper, *stated, ''])
            continue
        counted = (
            '' if row.parameters is None else f'{row.parameters / 1e6:.1f} M ',
            '' if row.flops is None else f'{_giga(row.flops)} ',
        )
        lines.append(
            [
                model.name,
                row.weights or 'random',
                row.left_out or _figures(row.measured) or 'nothing to score',
                paper,
                *(''.join(pair) for pair in zip(counted, stated, strict=True)),
                number(row.images_per_second),
            ]
        )
    return table(columns, lines)


def _figures(figures: Mapping[str, float]) -> str:
    return ', '.join(f'{name} {value:.1f}' for name, value in figures.items())


def _giga(flops: float) -> str:
    return f'{flops / 1e9:.1f} G' if flops < 1e11 else f'{flops / 1e9:.0f} G'
