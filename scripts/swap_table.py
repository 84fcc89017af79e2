"""Swap the backbone of published configs, run every model, and compare with the table in docs/swapping.md.

    python scripts/swap_table.py                     all of them; fails where the table says something else
    python scripts/swap_table.py --write             all of them; writes the table
    python scripts/swap_table.py --compiled-ops      those that need mmcv's compiled ops, with such an mmcv;
                                                     with --write, their rows say that they work with it
    python scripts/swap_table.py --only rtmdet       those with that in their name

The configs are in `tests/swapping/published_configs.py`. Each model is built with UniRepLKNet-A, predicts,
and gives a loss whose gradients are finite in the whole backbone; Grounding DINO has a stand-in for its
language model.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'ops'), str(ROOT / 'tests' / 'swapping')]

from mmengine.logging import MMLogger  # noqa: E402
from published_configs import (  # noqa: E402
    CLASSIFIERS,
    DETECTORS,
    REFUSED,
    SEGMENTERS,
    WORKING,
    Case,
)

from unireplknet_mm.swapping import (  # noqa: E402
    Change,
    SwapError,
    Trial,
    plan_swap,
    read_original,
    try_swap,
    write_swap,
)
from unireplknet_mm.swapping.writing import write_config  # noqa: E402

ARCH = 'a'
PAGE = ROOT / 'docs' / 'swapping.md'
TABLE, EXAMPLE = 'swap_table', 'swap_example'  # marks in the page
EXAMPLE_CONFIG = 'mmdet::retinanet/retinanet_r50-caffe_fpn_1x_coco.py'
WORKS = 'works'
COMPILED_OP = "needs mmcv's compiled op"
WITH_IT = '; with it, works'  # noted by --compiled-ops; a run without the ops leaves it


class Row(NamedTuple):
    """What came of one config."""

    case: Case
    outcome: str
    changes: list[str]

    def __str__(self) -> str:
        cells = [f'`{self.case.title}`', self.outcome, ', '.join(self.changes)]
        return f'| {" | ".join(cell for cell in cells if cell)} |'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--write', action='store_true', help='write the table')
    parser.add_argument(
        '--only', default='', metavar='TEXT', help='configs with that in their name'
    )
    parser.add_argument(
        '--compiled-ops',
        action='store_true',
        help="only what needs mmcv's compiled ops, which this mmcv has",
    )
    args = parser.parse_args()
    if args.write and args.only:
        parser.error('--write takes all configs, or with --compiled-ops those that need them')
    return args


def swap(case: Case) -> Row:
    """Swap the backbone of a config, try its model, and write the config.

    Raises:
        SwapError: as `swap_backbone`.
    """
    path, original = read_original(case.config)
    if 'language_model' in original.model:
        import language_stub  # registers the model

        original.model.language_model = dict(type='StubLanguageModel')
        language_stub.mend_decoder()
        original.model.encoder.num_cp = 0  # saves memory with fairscale, which is not installed
    swapped = plan_swap(original, ARCH, **case.options)
    trial = try_swap(swapped, original)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'swapped.py'
        if 'language_model' not in original.model:  # the file's base would have the real one
            write_swap(swapped, original, [str(path.resolve())], out, trial)
    return Row(case, trial.obstacle or WORKS, summarise(swapped.changes))


def summarise(changes: list[Change]) -> list[str]:
    """The changes of a config, a few words each, without what every swap changes."""
    words = []
    for change in changes:
        place = change.place.removeprefix('model.')
        if place in ('backbone', 'custom_imports', 'backbone.drop_path_rate'):
            continue
        if place.startswith('data_preprocessor'):
            word = 'normalisation'
        elif ' in ' in place:
            word = place.partition('.')[0].partition(' in ')[0]
        elif place == 'optim_wrapper.optimizer':
            word = change.what.partition(' ')[0] + ' → AdamW'
        elif place.startswith('param_scheduler'):
            word = 'schedule'
        elif change.what.endswith('dropped') and place.startswith('backbone'):
            word = f'{place.partition(".")[2]} dropped'
        elif place.startswith('backbone.'):
            word = f'{place.partition(".")[2]}={change.what}'
        else:
            word = place
        if word not in words:
            words.append(word)
    return words


def refuse(case: Case) -> Row:
    """The reason for which a config is refused.

    Raises:
        RuntimeError: it is not.
    """
    _, original = read_original(case.config)
    try:
        plan_swap(original, ARCH, **case.options)
    except SwapError as error:
        reason = str(error).partition('cannot be swapped: ')[2] or str(error)
        return Row(case, reason, [])
    raise RuntimeError(f'{case.config} should be refused')


def make_tables(rows: dict[str, Row]) -> str:
    """Markdown of all rows, which are named by the titles of their cases."""
    lines = []
    for title, cases in (
        ('Detection', DETECTORS),
        ('Segmentation', SEGMENTERS),
        ('Classification', CLASSIFIERS),
    ):
        lines += [f'### {title}', '', '| config | with UniRepLKNet | changed |', '|---|---|---|']
        lines += [str(rows[case.title]) for case in cases] + ['']
    lines += ['### Refused', '', '| config | because |', '|---|---|']
    lines += [str(rows[case.title]) for case in REFUSED] + ['']
    return '\n'.join(lines)


def make_example() -> str:
    """A written config, as Markdown."""
    _, original = read_original(EXAMPLE_CONFIG)
    swapped = plan_swap(original, 't', pretrained='unireplknet_t_in1k')
    text = write_config(swapped, original, EXAMPLE_CONFIG, [str(Trial(loss=None))])
    return f'```python\n{text}```\n'


def part_of_page(name: str) -> str:
    """What stands between two marks of the page."""
    begin, end = _marks(name)
    return PAGE.read_text(encoding='utf-8').partition(begin)[2].partition(end)[0]


def write_part(name: str, text: str) -> None:
    begin, end = _marks(name)
    before, _, rest = PAGE.read_text(encoding='utf-8').partition(begin)
    PAGE.write_text(f'{before}{begin}{text}{end}{rest.partition(end)[2]}', encoding='utf-8')


def _marks(name: str) -> tuple[str, str]:
    return f'<!-- {name}: begin -->\n', f'<!-- {name}: end -->\n'


def with_note(row: Row) -> Row:
    """The row as the page has it: that a config works with the ops is known from another run."""
    known = COMPILED_OP in row.outcome and WITH_IT in row_of_page(row.case)
    return row._replace(outcome=row.outcome + WITH_IT) if known else row


def note_working(rows: Iterable[Row]) -> None:
    """Write into the page that these configs, which need mmcv's compiled ops, work with them."""
    table = part_of_page(TABLE)
    for row in rows:
        line = row_of_page(row.case)
        cells = line.split(' | ')
        if WITH_IT not in line:
            table = table.replace(line, ' | '.join([cells[0], cells[1] + WITH_IT, *cells[2:]]))
    write_part(TABLE, table)


def row_of_page(case: Case) -> str:
    """The line of a config in the page; '' for none."""
    start = f'| `{case.title}` |'
    return next((line for line in part_of_page(TABLE).splitlines() if line.startswith(start)), '')


def run(case: Case) -> Row:
    begin = time.process_time()
    row = refuse(case) if case in REFUSED else swap(case)
    print(f'{case.title}: {row.outcome} ({time.process_time() - begin:.0f} s)', flush=True)
    gc.collect()
    return row


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    cases = [case for case in [*WORKING, *REFUSED] if args.only in case.title]
    if args.compiled_ops:
        cases = [case for case in cases if COMPILED_OP in row_of_page(case)]
    rows, failures = {}, []
    for case in cases:
        try:
            rows[case.title] = with_note(run(case))
        except Exception as error:  # go on, and say at the end which failed
            print(f'{case.title}: FAILED: {type(error).__name__}: {error}', flush=True)
            failures.append(case.title)
    if args.compiled_ops:
        failures += [row.case.title for row in rows.values() if row.outcome != WORKS]
        if args.write and not failures:
            note_working(rows.values())
        failures += [
            f'{title}: the page does not say so; --compiled-ops --write notes it'
            for title, row in rows.items()
            if row.outcome == WORKS and WITH_IT not in row_of_page(row.case)
        ]
    elif args.write and not failures:
        write_part(EXAMPLE, make_example())
        write_part(TABLE, make_tables(rows))
    else:
        failures += [
            f'{title}: the page says something else; write it anew with --write'
            for title, row in rows.items()
            if row_of_page(row.case) != str(row)
        ]
    if failures:
        sys.exit('\n'.join([f'{len(failures)} of {len(cases)} failed:', *failures]))
    print(f'{len(rows)} configs as the page says.')


if __name__ == '__main__':
    main()
