"""The table in docs/swapping.md is that of `scripts/swap_table.py`, as far as is seen without running all."""

import pytest
from published_configs import CLASSIFIERS, DETECTORS, REFUSED, SEGMENTERS, WORKING

from scripts.swap_table import (
    COMPILED_OP,
    EXAMPLE,
    ROOT,
    TABLE,
    WITH_IT,
    Row,
    make_example,
    part_of_page,
    refuse,
    row_of_page,
    summarise,
    with_note,
)


def test_every_config_has_one_row():
    titles = [case.title for case in [*WORKING, *REFUSED]]
    rows = [line for line in part_of_page(TABLE).splitlines() if line.startswith('| `')]
    assert [line.split('`')[1] for line in rows] == titles


def test_as_many_as_promised_work():
    for cases, least in ((DETECTORS, 30), (SEGMENTERS, 18), (CLASSIFIERS, 6)):
        working = [case for case in cases if row_of_page(case).split(' | ')[1] == 'works']
        assert len({case.config for case in working}) >= least


@pytest.mark.parametrize(
    'name',
    ['retinanet_r50-caffe', 'yolox_s', 'deeplabv3plus_r50', 'fcn_hr18', 'resnet50_8xb32_in1k'],
)
def test_changes_of_a_sample_are_those_of_the_page(plan, name):
    (case,) = [case for case in WORKING if name in case.config]
    changes = ', '.join(summarise(plan(case.config, **case.options).changes))
    assert row_of_page(case).endswith(f'| {changes} |')


def test_what_needs_compiled_ops_works_with_them():
    rows = [row_of_page(case) for case in WORKING]
    needy = [row for row in rows if COMPILED_OP in row]
    assert len(needy) >= 5
    assert all(row.split(' | ')[1].endswith(WITH_IT) for row in needy)


def test_a_run_without_the_ops_leaves_the_note():
    (case,) = [case for case in WORKING if 'mmdet::tood' in case.title]
    outcome = row_of_page(case).split(' | ')[1].removesuffix(WITH_IT)
    assert with_note(Row(case, outcome, [])).outcome == outcome + WITH_IT
    assert with_note(Row(case, 'works', [])).outcome == 'works'


def test_reasons_are_those_of_the_page():
    for case in REFUSED[:2]:
        assert str(refuse(case)) == row_of_page(case)


def test_example_is_what_is_written():
    assert part_of_page(EXAMPLE) == make_example()


def test_makefile_states_the_number():
    count = len(WORKING) + len(REFUSED)
    assert f'backbone of {count} published configs' in (ROOT / 'Makefile').read_text()
