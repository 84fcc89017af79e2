"""The tensor-core kernels in every way to divide their work, not only the one chosen for a shape.

Which plan a shape gets depends on a model of a large GPU, so that the small shapes that an emulator
can run would leave most plans untried. `cuda_emulator/tensor_core_test.cpp` compares each of
them with sums in float64; see `test_cuda_sources.py` for the emulator.
"""

import re

import pytest
from test_cuda_sources import EMULATOR, build_for_host, run_program

# n, c, h, w, kernel height, kernel width; the elements by which tensors miss the alignment of their
# allocation. Every number of 8-column chunks under a kernel, maps smaller than the kernel, more and
# fewer images than the 16 that a warp takes, rows that are no multiple of any vector, maps too wide
# for one tile.
CASES = (
    (1, 1, 1, 1, 3, 3, 0),
    (17, 1, 7, 7, 13, 13, 0),
    (40, 1, 6, 7, 5, 7, 0),
    (2, 2, 7, 7, 31, 31, 0),
    (16, 1, 16, 16, 31, 31, 0),
    (18, 1, 14, 14, 9, 13, 0),
    (5, 2, 9, 10, 5, 5, 1),
    (3, 1, 17, 40, 13, 13, 0),
    (2, 1, 12, 36, 17, 17, 0),
    (4, 1, 12, 48, 9, 9, 2),
    (3, 1, 13, 33, 25, 25, 0),
    (2, 1, 20, 24, 3, 13, 1),
    (2, 1, 24, 20, 31, 5, 0),
    (2, 1, 9, 33, 7, 15, 0),
    (16, 1, 5, 420, 3, 31, 0),
)


# The variants' other warps, tiles and copies: few and many images, one element a copy, narrow and wide maps.
VARIED_CASES = (
    (17, 1, 7, 7, 13, 13, 0),
    (5, 2, 9, 10, 5, 5, 1),
    (3, 1, 17, 40, 13, 13, 0),
    (2, 1, 12, 36, 17, 17, 0),
    (6, 1, 20, 24, 3, 13, 0),
)


# Whole groups of 8 channels; batches smaller and larger than what a block takes.
CHANNELS_LAST_CASES = (
    (3, 8, 14, 14, 13, 13, 0),
    (9, 16, 7, 7, 13, 13, 0),
    (2, 8, 17, 40, 5, 7, 0),
    (1, 8, 5, 70, 3, 17, 0),
    (5, 24, 1, 9, 9, 3, 0),
)


@pytest.fixture(scope='module')
def program():
    return build_for_host([EMULATOR / 'tensor_core_test.cpp'], 'tensor_core_test')


@pytest.mark.parametrize('case', CASES, ids=lambda case: 'x'.join(map(str, case)))
@pytest.mark.parametrize('operation', ['forward', 'backward_input', 'backward_weight'])
def test_every_plan(program, operation, case):
    dtypes = ('float16', 'bfloat16') if operation == 'forward' else ('bfloat16',)
    for dtype in dtypes:
        check_every_plan(program, operation, dtype, case)


@pytest.mark.parametrize('case', VARIED_CASES, ids=lambda case: 'x'.join(map(str, case)))
@pytest.mark.parametrize(
    ('operation', 'variants'),
    [
        ('forward', 'prefetch'),
        ('backward_input', 'prefetch'),
        ('backward_weight', 'seven_rows'),
        ('backward_weight', 'prefetch'),
        ('backward_weight', 'seven_rows,prefetch'),
    ],
)
def test_every_plan_of_the_variants(program, operation, variants, case):
    check_every_plan(program, operation, 'bfloat16', case, variants)


@pytest.mark.parametrize('case', CHANNELS_LAST_CASES, ids=lambda case: 'x'.join(map(str, case)))
@pytest.mark.parametrize('operation', ['forward', 'backward_input'])
def test_every_plan_for_channels_last(program, operation, case):
    check_every_plan(program, operation, 'bfloat16', case, 'channels_last')


def check_every_plan(program, operation, dtype, case, variants=''):
    done = run_program(program, operation, dtype, *map(str, case), 'all', variants)
    assert done.returncode == 0, f'{done.stdout[-2000:]}\n{done.stderr[:5000]}'
    plans, wrong = map(int, re.search(r'(\d+) plans, (\d+) wrong', done.stdout).groups())
    assert plans > 0
    assert wrong == 0


def test_variants_only_where_they_are_asked_for(program):
    """The default is another plan than that of a variant, and both are right."""
    case = (64, 2, 14, 14, 13, 13, 0)
    arguments = ('backward_weight', 'bfloat16', *map(str, case), 'chosen')
    shown = {}
    for variants in ('', 'seven_rows', 'prefetch', 'seven_rows,prefetch'):
        done = run_program(program, *arguments, variants)
        assert done.returncode == 0, done.stdout
        shown[variants] = re.search(r'(\d+) tap rows, (\d+) stages', done.stdout).groups()
    assert shown == {
        '': ('4', '1'),
        'seven_rows': ('7', '1'),
        'prefetch': ('4', '2'),
        'seven_rows,prefetch': ('7', '2'),
    }
    assert run_program(program, *arguments, 'eight_rows').returncode == 2
