"""The table in docs/swapping.md is that of `scripts/swap_table.py`, as far as is seen without running all."""

import pytest
from published_configs import CLASSIFIERS, DETECTORS, REFUSED, SEGMENTERS, WORKING

from scripts.swap_table import (
    EXAMPLE,
    ROOT,
    TABLE,
    make_example,
    part_of_page,
    refuse,
    row_of_page,
    summarise,
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


def test_reasons_are_those_of_the_page():
    for case in REFUSED[:2]:
        assert str(refuse(case)) == row_of_page(case)


def test_example_is_what_is_written():
    assert part_of_page(EXAMPLE) == make_example()


def test_makefile_states_the_number():
    count = len(WORKING) + len(REFUSED)
    assert f'backbone of {count} published configs' in (ROOT / 'Makefile').read_text()
