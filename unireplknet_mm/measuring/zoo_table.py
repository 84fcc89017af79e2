"""What an evaluation of the zoo came to: kept on the disk as it goes on, a table at the end.

A row is of a model, its weights and the settings that scores depend on; images/s are kept in it by batch
size. Another run takes over what it would have measured the same way and measures the rest, so that a table
never mixes settings.
"""

import hashlib
import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmengine.config import Config

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
    """What is known of a model, with some weights, under some settings.

    Args:
        name: the model's.
        weights: what was loaded; '' for random weights.
        settings: what the scores depend on beside these.
        measured: scores by the index's names of figures; None before they are.
        parameters, flops: of the deploy form, at the size that the paper counts at.
        speeds: images/s of the deploy form at that size, by the number of images a call, in digits.
        left_out: why there are no scores.
    """

    name: str
    weights: str
    settings: dict[str, str]
    measured: dict[str, float] | None = None
    parameters: int | None = None
    flops: int | None = None
    speeds: dict[str, float] = field(default_factory=dict)
    left_out: str | None = None

    @property
    def identity(self) -> tuple:
        """What another row has in common only if it is of the same measurement."""
        return self.name, self.weights, *sorted(self.settings.items())


def fingerprint(cfg: Config) -> str:
    """A few digits that change with what a test of the config depends on."""
    tested = {key: cfg.get(key) for key in ('model', 'test_dataloader', 'test_evaluator')}
    text = json.dumps(tested, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_state(weights: str) -> dict[str, str]:
    """Settings by which a local file is known again, as long as nobody writes it anew; none for others."""
    path = Path(weights)
    if not weights or not path.is_file():
        return {}
    state = path.stat()
    return {'file': f'{state.st_size} bytes, {state.st_mtime_ns}'}


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


def read_rows(path: Path) -> dict[tuple, Row]:
    """The rows of earlier runs, by identity; none where there were none.

    Raises:
        UserError: the file is something else.
    """
    if not path.exists():
        return {}
    try:
        rows = [Row(**row) for row in json.loads(path.read_text(encoding='utf-8'))]
        return {row.identity: row for row in rows}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f'{path} does not hold the rows of an evaluation ({error}): remove it to begin anew'
        ) from error


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Keep the rows that have scores; the others are tried again."""
    known = [asdict(row) for row in rows if row.measured is not None]
    write_text(path, json.dumps(known, indent=1) + '\n')


def markdown(
    models: Iterable[ZooModel], rows: Mapping[str, Row], batch_size: int | None = None
) -> str:
    """A line a model: measured beside the paper's, in brackets what the paper states.

    Args:
        models: the lines, in order.
        rows: by the model's name; a model without one was not reached.
        batch_size: of the images/s; None leaves them out.
    """
    columns = ['model', 'weights', 'measured', 'paper', 'parameters', 'FLOPs']
    if batch_size is not None:
        columns.append('images/s' if batch_size == 1 else f'images/s (batch {batch_size})')
    lines = []
    for model in models:
        row = rows.get(model.name, Row(model.name, model.weights, {}))
        if row.measured is None:
            measured = row.left_out or 'not reached'
        else:
            measured = _figures(row.measured) or 'nothing to score'
        counted = (
            '' if row.parameters is None else f'{row.parameters / 1e6:.1f} M ',
            '' if row.flops is None else f'{_giga(row.flops)} ',
        )
        stated = (f'({model.parameters / 1e6:.1f} M)', f'({_giga(model.flops)})')
        cells = [model.name, row.weights or 'random', measured, _figures(model.figures)]
        cells += [''.join(pair) for pair in zip(counted, stated, strict=True)]
        if batch_size is not None:
            cells.append(number(row.speeds.get(str(batch_size))))
        lines.append(cells)
    return table(columns, lines)


def _figures(figures: Mapping[str, float]) -> str:
    return ', '.join(f'{name} {value:.1f}' for name, value in figures.items())


def _giga(flops: float) -> str:
    return f'{flops / 1e9:.1f} G' if flops < 1e11 else f'{flops / 1e9:.0f} G'
