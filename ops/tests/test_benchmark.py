"""Measuring: what is counted, checked, left out and reported; tuning; the script for GPUs."""

import json
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import time_variants
import torch
import torch.nn.functional as F
from op_cases import reason_to_skip

from unireplknet_ops import (
    benchmark,
    benchmark_report,
    dispatch,
    library,
    peers,
    tune,
    tuning_tables,
)
from unireplknet_ops.benchmark import Benchmark, Plan
from unireplknet_ops.benchmark_report import Report, h200_floors
from unireplknet_ops.measure import (
    Shape,
    Tensors,
    Timer,
    WrongResultError,
    make_pool,
    native_pass,
)
from unireplknet_ops.results import Measurement
from unireplknet_ops.tuning_tables import PASSES

OPS = Path(__file__).parents[1]
SMALL = Shape(5, 1, 9, 11, 2, 18, torch.float32)
DILATED = Shape(3, 3, 8, 10, 1, 16, torch.bfloat16)
NATIVE = (
    'unireplknet_ops.measure.Tensors.op',
    lambda self, name: native_pass(
        name, self.x, self.grad_output, self.weight, self.shape.dilation
    ),
)

needs_op = pytest.mark.skipif(
    reason_to_skip('cpu') is not None, reason=reason_to_skip('cpu') or 'there is one'
)


@pytest.fixture
def op_is_native(monkeypatch):
    """Programs run without a compiled op: it computes what the native convolution does."""
    monkeypatch.setattr(*NATIVE)
    monkeypatch.setattr(library, 'missing', lambda device_type: None)
    monkeypatch.setattr(tuning_tables, 'device_level', lambda device_type: 'avx2')


@pytest.fixture
def one_tap_is_off(op_is_native, monkeypatch):
    """The op's filter lacks a tap, but in the last channel only."""

    def op(self, name):
        weight = self.weight.clone()
        weight[-1, 0, 0, 0] = 0
        result = native_pass(name, self.x, self.grad_output, weight, self.shape.dilation)
        if name == 'grad_weight':
            result[-1, 0, 0, 0] = 0
        return result

    monkeypatch.setattr('unireplknet_ops.measure.Tensors.op', op)


def make_tensors(shape, channels_last=False):
    return Tensors(shape, make_pool([shape], shape.dtype, 'cpu'), channels_last)


@pytest.mark.parametrize(
    'shape', [SMALL, DILATED, Shape(7, 2, 3, 20, 3, 2, torch.float32)], ids=str
)
def test_counted_flops(shape):
    """Against a convolution of ones, each of whose outputs is the number of its taps on the map."""
    ones = torch.ones(shape.batch, shape.channels, shape.height, shape.width)
    taps = torch.ones(shape.channels, 1, shape.kernel_size, shape.kernel_size)
    assert shape.valid_flops == 2 * native_pass('forward', ones, ones, taps, shape.dilation).sum()
    assert shape.flops == 2 * ones.numel() * shape.kernel_size**2


@pytest.mark.parametrize('channels_last', [False, True])
def test_tensors_and_native_passes(channels_last):
    tensors = make_tensors(SMALL, channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for tensor in (tensors.x, tensors.grad_output):
        assert tensor.shape == (2, 18, 9, 11)
        assert tensor.is_contiguous(memory_format=memory_format)
        assert tensor.data_ptr() % 64 == 0
        assert 0.9 < tensor.std() < 1.1
    assert not torch.equal(tensors.x, tensors.grad_output)
    x, weight = (t.detach().clone().requires_grad_() for t in (tensors.x, tensors.weight))
    output = F.conv2d(x, weight, padding=2, groups=18)
    output.backward(tensors.grad_output)
    for name, expected in zip(PASSES, (output, x.grad, weight.grad), strict=True):
        torch.testing.assert_close(tensors.native(name), expected)


@needs_op
@pytest.mark.parametrize('shape', [SMALL, DILATED], ids=str)
@pytest.mark.parametrize('channels_last', [False, True])
def test_the_op_passes_the_check(shape, channels_last):
    tensors = make_tensors(shape, channels_last)
    for name in PASSES:
        result = tensors.op(name)
        tensors.check(name, result, tensors.native(name))
        assert result.shape == tensors.native(name).shape


@pytest.mark.parametrize('name', PASSES)
@pytest.mark.parametrize(
    'shape', [SMALL, DILATED, Shape(31, 1, 9, 9, 3, 7, torch.float16)], ids=str
)
def test_what_the_check_catches(name, shape):
    tensors = make_tensors(shape)
    right = tensors.native(name)
    tensors.check(name, right, right)
    tensors.check(name, right, None)
    tensors.check(name, right, torch.full_like(right, torch.nan))
    middle = (0 if name == 'grad_weight' else shape.batch // 2, shape.channels // 2)
    plane = (middle[1],) if name == 'grad_weight' else middle
    wrong = right.clone()
    wrong[plane] += 0.1 * right[plane].std()
    with pytest.raises(WrongResultError, match=rf'{name} of .* has a relative error of 0\.'):
        tensors.check(name, wrong, right)
    wrong = right.clone()
    wrong[plane].view(-1)[-1] = torch.nan
    with pytest.raises(WrongResultError, match='is not finite'):
        tensors.check(name, wrong, right)


def test_repetitions():
    calls = []
    timer = Timer('cpu', budget=0.1, least=2, most=5, once_above=1.0)
    names = ('quick', 'medium', 'slow', 'very slow')
    seconds = timer.time(
        [lambda name=name: calls.append(name) for name in names], [1e-6, 0.03, 0.5, 1.5]
    )
    assert [calls.count(name) for name in names] == [5, 3, 2, 0]
    assert calls[:4] == ['quick', 'medium', 'slow', 'quick'], 'they take turns'
    assert seconds[3] == 1.5
    assert all(0 < value < 0.1 for value in seconds[:3])


def test_the_plan_covers_what_the_tables_promise():
    plans = benchmark.cpu_plan(quick=False)
    shapes = {shape for plan in plans for shape in plan.shapes}
    assert {(s.height, s.width) for s in shapes} == set(benchmark.CPU_MAPS)
    kernels = {(s.kernel_size, s.dilation) for s in shapes}
    assert kernels >= {(k, 1) for k in (3, 5, 7, 9, 13, 17, 25, 31)} | {
        (5, 1),
        (7, 2),
        (3, 3),
        (3, 4),
        (3, 5),
    }
    assert {(s.batch, s.channels) for s in shapes} == {(1, 64), (8, 64), (1, 384), (8, 384)}
    assert {(plan.threads, plan.shapes[0].dtype) for plan in plans} == {
        ((count,), dtype) for count in (1, 2) for dtype in (torch.float32, torch.bfloat16)
    }
    plans = benchmark.cuda_plan(quick=False)
    table_1 = [plan for plan in plans if plan.title.startswith('Table 1')]
    shapes = [shape for plan in table_1 for shape in plan.shapes]
    assert {(s.batch, s.channels) for s in shapes} == {(64, 384)}
    assert len(set(shapes)) == len(shapes) == 3 * 3 * len(benchmark.TABLE_1_KERNELS)


@pytest.mark.parametrize('quick', [False, True])
def test_the_kernel_of_the_backbone_comes_first_on_a_gpu(quick):
    plans = benchmark.cuda_plan(quick)
    assert all(shape.kernel_size == 13 for plan in plans[:3] for shape in plan.shapes)
    assert [plan.shapes[0].dtype for plan in plans[:3]] == [
        *(torch.bfloat16, torch.float32, torch.float16)
    ]


def test_a_benchmark_of_two_shapes(op_is_native):
    run = Benchmark('cpu', budget=0.001, slowest=10)
    measured = run.run(Plan('two', (SMALL, DILATED), (1,)), deadline=float('inf'))
    assert [(m.shape, m.name) for m in measured] == [
        (shape, name) for shape in (SMALL, DILATED) for name in PASSES
    ]
    layouts = ('contiguous', 'channels_last')
    for measurement in measured:
        assert set(measurement.seconds) == {
            f'{who} {x}' for who in ('op', 'native') for x in layouts
        }
        assert not measurement.left_out
        assert measurement.wrong is None
        assert all(seconds > 0 for seconds in measurement.seconds.values())
    row = json.loads(json.dumps(measured[-1].as_dict()))
    assert row['dtype'] == 'bfloat16'
    assert row['dilation'] == 3


def test_no_speed_up_of_a_wrong_op(one_tap_is_off):
    run = Benchmark('cpu', budget=0.001, slowest=10)
    measured = run.run(Plan('one', (SMALL,), (1,)), deadline=float('inf'))
    assert [bool(m.wrong) for m in measured] == [True] * 3
    for measurement in measured:
        assert 'relative error' in measurement.wrong
        assert set(measurement.seconds) == {'native contiguous', 'native channels_last'}
    report = Report({'cores': '2'}, {'float32 1': 1e11}, measured)
    assert report.measurements == []
    assert 'x |' not in report.markdown()


def test_what_would_take_too_long_is_left_out(op_is_native):
    run = Benchmark('cpu', budget=0.001, slowest=1e-9)
    larger = SMALL._replace(height=20)
    measured = run.run(Plan('two', (SMALL, larger), (1,)), deadline=float('inf'))
    assert len(measured[0].seconds) == 4, 'nothing is known of the first'
    assert not measured[3].seconds
    assert set(measured[3].left_out.values()) == {'above 1e-09 s'}
    late = run.run(Plan('late', (SMALL,), (1,)), deadline=0)
    assert benchmark.left_out_counts(late) == {'out of time': 12}


def run_program(main, monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['program', *map(str, arguments)])
    return main()


def tiny_plan(quick):
    return [Plan('tiny', (SMALL,), (1,))]


def test_the_program(op_is_native, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, 'cpu_plan', tiny_plan)
    path = tmp_path / 'new' / 'results.json'
    arguments = ('--quick', '--markdown', '--output', path)
    assert run_program(benchmark.main, monkeypatch, *arguments) == 0
    output = capsys.readouterr()
    content = json.loads(path.read_text())
    assert content['machine']['torch'] == torch.__version__
    assert len(content['measurements']) == 3
    assert content['rates']['float32 1'] > 1e8
    assert 'grad-weight, NCHW, K >= 5, of the matrix product' in output.out
    assert output.err == ''


def test_the_program_ends_with_an_error_where_the_op_is_wrong(one_tap_is_off, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, 'cpu_plan', tiny_plan)
    assert run_program(benchmark.main, monkeypatch, '--quick') == 1
    assert capsys.readouterr().err.count('WRONG: ') == 3


@pytest.mark.parametrize('program', [benchmark.main, tune.main])
def test_without_the_op_there_is_nothing_to_measure(program, monkeypatch, capsys):
    monkeypatch.setattr(library, 'missing', lambda device_type: 'the library was not built')
    assert run_program(program, monkeypatch) == 1
    assert 'cannot run on cpu: the library was not built' in capsys.readouterr().err


def make_measurement(name='forward', threads=1, shape=SMALL, **seconds):
    times = {key.replace('_', ' ', 1): value for key, value in seconds.items()}
    return Measurement(shape, name, threads, times)


def test_reported_speed_ups():
    fast = make_measurement(
        native_contiguous=6.0, op_contiguous=2.0, native_channels_last=4.0, op_channels_last=1.0
    )
    slow = make_measurement(
        native_contiguous=1.0, op_contiguous=2.0, native_channels_last=4.0, op_channels_last=1.0
    )
    report = Report({'cores': '2'}, {'float32 1': 1e6}, [fast, slow])
    assert report.speed_up(fast, 'contiguous') == 3
    assert report.speed_up(fast, 'better') == 4, 'torch is faster on channels_last'
    assert report.speed_up(slow, 'better') == 0.5
    assert report.fraction(fast, 'channels_last') == SMALL.flops / 1e6
    assert report.fraction(fast, 'channels_last', valid=True) == SMALL.valid_flops / 1e6
    row = next(line for line in report.summary().splitlines() if 'suits torch better' in line)
    assert [cell.strip() for cell in row.split('|')[3:7]] == ['1x', '1.41x', '0.50x', '1 of 2']
    assert '| 5 | 1.22 (0.50) / 4.0 (4.0) |' in report.markdown()
    (miss,) = report.misses()
    assert miss.startswith('below 1x, forward, in the layout that suits torch better: 0.50x, 5x5 ')


def test_missing_times_are_no_zeros():
    alone = make_measurement(op_contiguous=2.0)
    report = Report({'cores': '2'}, {'float32 1': 1e6}, [alone])
    assert report.speed_up(alone, 'contiguous') is None
    assert report.speed_up(alone, 'better') is None
    assert '| 5 | - / - |' in report.markdown()


def test_gpu_tables():
    shape = Shape(13, 1, 32, 32, 64, 384, torch.bfloat16)
    seconds = {
        'op contiguous': 36e-6,
        'op channels_last': 50e-6,
        'native contiguous': 360e-6,
        'native channels_last': 100e-6,
        'via channels_last': 180e-6,
        'fft': 72e-6,
    }
    machine = {'device': 'NVIDIA H200'}
    report = Report(machine, {'bfloat16 1': 7e14}, [Measurement(shape, 'forward', 1, seconds)])
    text = report.markdown()
    row = next(line for line in text.splitlines() if line.startswith('| 32² | 13 | 64 | 384'))
    cells = [cell.strip() for cell in row.strip('|').split('|')]
    assert cells[4:6] == ['36.0', '23.4']
    assert cells[-5:] == ['50.0', '10.0x', '2.00x', '5.0x', '2.00x']
    assert 'floor' not in Report({'device': 'NVIDIA A100'}, {}, report.measurements).markdown()


# N = 64, C = 384, microseconds: (map, K): memory in float32, direct float32, tensor cores in 16 bit.
FLOORS = {
    (16, 7): (11.7, 8, 2),
    (16, 13): (11.7, 23, 3),
    (16, 31): (11.7, 54, 5),
    (32, 7): (46.8, 37, 9),
    (32, 13): (46.8, 115, 24),
    (32, 17): (46.8, 183, 30),
    (32, 31): (46.8, 463, 63),
    (64, 7): (187, 156, 37),
    (64, 13): (187, 511, 116),
    (64, 17): (187, 846, 149),
    (64, 31): (187, 2492, 366),
}


@pytest.mark.parametrize('case', FLOORS, ids=str)
def test_floors_of_an_h200(case):
    size, kernel_size = case
    memory, direct, tensor_cores = FLOORS[case]
    shape = Shape(kernel_size, 1, size, size, 64, 384, torch.float32)
    actual = [1e6 * seconds for seconds in h200_floors(shape)]
    assert actual == [pytest.approx(memory, rel=0.01), pytest.approx(direct, rel=0.01, abs=0.6)]
    actual = [1e6 * seconds for seconds in h200_floors(shape._replace(dtype=torch.bfloat16))]
    expected = [pytest.approx(memory / 2, rel=0.01), pytest.approx(tensor_cores, rel=0.01, abs=0.6)]
    assert actual == expected


def fused_fft_conv2d(x, kernel, fft_size):
    """What the library computes: a linear convolution, cut out at half the FFT's size."""
    height, width = x.shape[2:]
    assert max(height, width) <= fft_size // 2
    size = 2 * fft_size  # nothing wraps around
    product = torch.fft.rfft2(x, s=(size, size)) * torch.fft.rfft2(kernel, s=(size, size))
    full = torch.fft.irfft2(product, s=(size, size))
    start = fft_size // 2
    return full[:, :, start : start + height, start : start + width]


@pytest.mark.parametrize('kernel_size, size', [(3, 7), (13, 14), (31, 16), (31, 9), (5, 64)])
def test_peers_compute_the_same(kernel_size, size, monkeypatch):
    monkeypatch.setattr(peers, 'fused_fft_convolution', lambda: fused_fft_conv2d)
    tensors = make_tensors(Shape(kernel_size, 1, size, size - 2, 2, 3, torch.float32))
    candidates = peers.cuda_peers(tensors)
    assert set(candidates) == {'via channels_last', 'fft'}
    for name in PASSES:
        expected = tensors.native(name)
        actual = candidates['via channels_last'](name)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
        assert actual.is_contiguous()
        if name == 'grad_weight':
            with pytest.raises(NotImplementedError):
                candidates['fft'](name)
        else:
            torch.testing.assert_close(candidates['fft'](name), expected, rtol=1e-4, atol=1e-4)


def test_fft_where_it_does_not_fit(monkeypatch):
    monkeypatch.setattr(peers, 'fused_fft_convolution', lambda: fused_fft_conv2d)
    for shape in (SMALL._replace(width=65), DILATED):
        assert set(peers.cuda_peers(make_tensors(shape))) == {'via channels_last'}
    assert peers.fft_tile(SMALL._replace(height=16, width=16)) == 32
    assert peers.fft_tile(SMALL._replace(height=4, width=4, kernel_size=13)) == 16


TINY_GRID = tune.Grid(
    dtypes=(torch.float32, torch.bfloat16),
    maps=((1, 16, 7, 7), (2, 16, 9, 12)),
    most_products=2e5,
    budget=1e-4,
)


def test_grids_stay_within_their_limits():
    for grid in (TINY_GRID, *tune.GRIDS.values()):
        for dtype in grid.dtypes:
            shapes = tune.grid_shapes(grid, dtype)
            assert len(shapes) == len(set(shapes)) >= 12
            assert all(shape.flops <= 2 * grid.most_products for shape in shapes)
            assert [s.flops for s in shapes] == sorted(s.flops for s in shapes)
            elements = {math.prod(sizes) for sizes in grid.maps}
            assert len(elements) == len(grid.maps), 'the choice tells maps apart by their elements'
            # every kernel has cells, on small maps at least
            assert {shape[:2] for shape in shapes if shape.elements == min(elements)} >= {
                kernel for kernel in tune.KERNELS if kernel[0] < 17 or grid is not TINY_GRID
            }


def test_tuning(op_is_native, monkeypatch, tmp_path, capsys):
    """The table that was written is the one that the dispatch reads."""
    monkeypatch.setitem(tune.GRIDS, 'cpu', TINY_GRID)
    arguments = ('--output', tmp_path, '--busy')
    before = torch.get_num_threads()
    assert run_program(tune.main, monkeypatch, *arguments) == 0
    assert torch.get_num_threads() == before
    table = tuning_tables.read(tmp_path / 'cpu-avx2.json')
    assert table.torch == torch.__version__
    assert table.command == 'python -m unireplknet_ops.tune --device cpu'
    layouts = ('contiguous', 'channels_last')
    assert set(table.cells) == {(d, x) for d in ('float32', 'bfloat16') for x in layouts}
    shapes = tune.grid_shapes(TINY_GRID, torch.float32)
    cells = table.cells['float32', 'contiguous']
    assert sorted(cell[:6] for cell in cells) == sorted(shape[:-1] for shape in shapes)
    assert all(math.isfinite(ratio) and ratio > 0 for cell in cells for ratio in cell[6:])
    assert f'float32 contiguous: {len(shapes)} of {len(shapes)} cells' in capsys.readouterr().out
    monkeypatch.setenv('UNIREPLKNET_TUNING_DIR', str(tmp_path))
    dispatch.clear_cache()
    assert tuning_tables.table_for('cpu') == table


@pytest.mark.parametrize('program', [benchmark.main, tune.main])
def test_results_that_do_not_fit(program, op_is_native, full_disk, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(benchmark, 'cpu_plan', tiny_plan)
    monkeypatch.setitem(tune.GRIDS, 'cpu', TINY_GRID)
    path, options = tmp_path / 'results.json', ['--quick']
    if program is tune.main:
        path, options = tmp_path / 'cpu-avx2.json', ['--busy']
    output = path if program is benchmark.main else tmp_path
    assert run_program(program, monkeypatch, '--output', output, *options) == 1
    message = f'error: {path} cannot be written: No space left on device.'
    assert capsys.readouterr().err.splitlines()[0] == message
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_folder_is_refused_at_once(op_is_native, monkeypatch, tmp_path, capsys):
    assert run_program(benchmark.main, monkeypatch, '--output', tmp_path) == 1
    message = f'error: {tmp_path} is no file, and cannot be replaced by one: name another one.\n'
    assert capsys.readouterr() == ('', message)


def test_tuning_stops_in_time(op_is_native):
    table = tune.measure_table('cpu', TINY_GRID, minutes=0, command='tune')
    assert all(cells == () for cells in table.cells.values())


def test_a_wrong_op_gets_no_table(one_tap_is_off, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(tune.GRIDS, 'cpu', TINY_GRID)
    arguments = ('--output', tmp_path, '--busy')
    assert run_program(tune.main, monkeypatch, *arguments) == 1
    assert 'no table is written: ' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_tuning_refuses_a_busy_machine(op_is_native, monkeypatch, capsys):
    monkeypatch.setattr(os, 'getloadavg', lambda: (1.5, 1.0, 1.0))
    assert run_program(tune.main, monkeypatch) == 1
    assert 'load of this machine is 1.5' in capsys.readouterr().err


def test_tuning_at_a_lower_level(monkeypatch):
    """`--isa` starts a process in which op, torch and oneDNN are held to the level."""
    started = {}

    def start(command, env, check):
        started.update(command=command, env=env)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, 'run', start)
    assert run_program(tune.main, monkeypatch, '--isa', 'avx2', '--minutes', '1') == 3
    assert started['command'][1:] == [
        *('-m', 'unireplknet_ops.tune', '--isa', 'avx2', '--minutes', '1')
    ]
    limits = {'UNIREPLKNET_CPU_ISA': 'avx2', 'ONEDNN_MAX_CPU_ISA': 'AVX2'}
    assert started['env'].items() >= limits.items()
    assert tuple(tune.NATIVE_LIMITS) == tuning_tables.CPU_LEVELS
    for name, value in started['env'].items():
        monkeypatch.setenv(name, value)
    assert tune.is_held_to('avx2')


def check_gpu(*arguments, cwd=None, **environment):
    return subprocess.run(
        ['bash', OPS / 'gpu_check.sh', *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | dict(PYTHON=sys.executable) | environment,
        check=False,
    )


@pytest.mark.parametrize('layout', time_variants.SETTINGS)
def test_the_variants_are_timed_under_their_names(monkeypatch, capsys, layout):
    """On the CPU, which has none: what is asked for, what is printed, and that a wrong result shows."""
    asked = []
    monkeypatch.setenv(time_variants.VARIABLE, '')
    monkeypatch.setattr(Tensors, 'op', record_variants(asked))
    tensors = Tensors(SMALL, make_pool([SMALL], SMALL.dtype, 'cpu'), layout == 'channels_last')
    timer = Timer('cpu', budget=1e-9)
    assert time_variants.time_settings(timer, tensors, layout, 'forward')
    settings = time_variants.SETTINGS[layout]
    assert list(dict.fromkeys(asked)) == list(settings)
    printed = capsys.readouterr().out
    assert all(f'{setting} ' in printed for setting in settings if setting)
    assert f'{layout}: default ' in printed
    monkeypatch.setattr(Tensors, 'op', lambda self, name: torch.ones_like(self.x))
    assert not time_variants.time_settings(timer, tensors, layout, 'forward')
    assert 'default is WRONG' in capsys.readouterr().out


def record_variants(asked):
    def op(self, name):
        asked.append(os.environ[time_variants.VARIABLE])
        return self.native(name)

    return op


GPU_STAGES = {
    1: ['small_set', 'tests', 'quick', 'variants', 'compile', 'plans'],
    2: ['tune', 'choice', 'benchmark'],
    3: ['memcheck', 'racecheck', 'counters', 'initcheck'],
}


@pytest.mark.parametrize('calls', [(1,), (2,), (3,), (1, 2, 3)])
def test_the_gpu_script_shows_its_stages_and_their_limits(tmp_path, calls):
    done = check_gpu(
        '--dry-run', '--output', 'somewhere', '--stages', ','.join(map(str, calls)), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    limits = {}  # seconds, by call and stage
    for line in done.stdout.splitlines():
        if match := re.match(r'call (\d), at most (\d+) s', line):
            limits[int(match[1])] = {}
            assert int(match[2]) == 480
        elif match := re.match(r'(\w+) \(at most (\d+) s\): ', line):
            limits[max(limits)][match[1]] = int(match[2])
    assert {call: list(stages) for call, stages in limits.items()} == {
        call: ['machine', 'load', 'library', *GPU_STAGES[call]] for call in calls
    }
    for stages in limits.values():
        assert sum(stages.values()) <= 470, 'ten seconds are for what lies between them'
        assert stages['machine'] >= 80, 'a cold import of torch'
    assert not (tmp_path / 'somewhere').exists()


def test_the_gpu_script_chooses_tests_by_what_they_run_on():
    pytest.importorskip('pytest_timeout', reason='the limit of a test needs pytest-timeout')
    chosen = re.search(r'^tests .* pytest \S+ (.*)$', check_gpu('--dry-run').stdout, re.MULTILINE)
    arguments = shlex.split(chosen[1])
    limit = int(next(a for a in arguments if a.startswith('--timeout=')).split('=')[1])
    assert limit >= 90, 'a first compilation by Triton takes most of a minute'
    assert arguments[arguments.index('-o') + 1] == 'timeout_method=signal'
    arguments = [argument for argument in arguments if argument not in ('-v', '-n', '6')]
    listed = subprocess.run(
        [sys.executable, '-m', 'pytest', OPS / 'tests', *arguments, '--collect-only', '-q'],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    names = [line.partition('::')[2] for line in listed.splitlines() if '::' in line]
    without_device = [name for name in names if not re.search(r'\[.*\bcuda\b|^test_cuda_', name)]
    assert len(names) > 400
    assert not without_device
    assert 'test_cuda_wait_for_nothing' in names
    assert not any('left_out' in name for name in names), 'tests of build.py'


def test_the_gpu_script_does_without_pytest_timeout(tmp_path):
    python = fake_python(tmp_path, '*"import pytest_timeout"*) exit 1 ;;')
    shown = check_gpu('--dry-run', '--stages', '1', PYTHON=python).stdout
    assert '--maxfail=10' in shown
    assert '--timeout' not in shown


def test_the_gpu_script_installs_what_is_carried(tmp_path):
    """Libraries, program and wheels of the folder are what the stages use."""
    for name in ('lib/libunireplknet_ops.so', 'wheels/some-1-py3-none-any.whl', 'time_plans'):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o755)
    done = check_gpu('--dry-run', '--stages', '1', '--carried', str(tmp_path))
    assert f'{tmp_path}/time_plans quick' in done.stdout
    assert f'{tmp_path}/wheels/some-1-py3-none-any.whl' in done.stdout
    assert 'compile (' not in done.stdout


@pytest.mark.parametrize(
    'arguments',
    [
        *(['--device', 'tpu'], ['--minutes', 'few'], ['--what'], ['--stages', '4']),
        *(['--carried', '/nowhere'], ['--pack'], ['--list-wheels', '--python', 'three']),
    ],
)
def test_the_gpu_script_refuses_wrong_arguments(arguments):
    done = check_gpu(*arguments)
    assert done.returncode == 2
    assert done.stderr


def stages_of(output: Path) -> dict[str, str]:
    """What `summary.txt` says of each stage."""
    lines = (output / 'summary.txt').read_text().splitlines()
    return {
        line.split()[0]: line.split()[1]
        for line in lines
        if re.match(r'\w+ ', line) and line[:4] != 'call'
    }


def fake_python(tmp_path: Path, script: str) -> str:
    """An interpreter that answers as the shell script does, whose $* are the arguments."""
    path = tmp_path / 'python'
    path.write_text(f'#!/bin/bash\ncase "$*" in\n{script}\nesac\necho fine\n')
    path.chmod(0o755)
    return str(path)


def test_a_wrong_number_is_reported_and_the_stages_go_on(tmp_path):
    python = fake_python(tmp_path, '*"convolution of ones"*) echo wrong; exit 1 ;;')
    done = check_gpu('--stages', '2', '--output', str(tmp_path / 'check'), PYTHON=python)
    assert done.returncode == 1
    stages = stages_of(tmp_path / 'check')
    assert (stages['library'], stages['benchmark']) == ('FAILED', 'passed')
    assert 'build' not in stages


def test_a_library_that_does_not_load_is_built_once(tmp_path):
    python = fake_python(tmp_path, '*"library.missing"*) echo no such file; exit 1 ;;')
    check_gpu('--stages', '2', '--output', str(tmp_path / 'check'), PYTHON=python)
    stages = stages_of(tmp_path / 'check')
    assert (stages['build'], stages['library'], stages['tune']) == ('passed', 'passed', 'passed')


def test_a_first_convolution_that_does_not_come_back_ends_the_call(tmp_path):
    timeout = tmp_path / 'timeout'  # in place of the real one, as if the limit were over
    timeout.write_text('#!/bin/bash\ncase "$*" in *"convolution of ones"*) exit 124 ;; esac\n')
    timeout.chmod(0o755)
    python = fake_python(tmp_path, '')
    path = f'{tmp_path}:{os.environ["PATH"]}'
    done = check_gpu('--output', str(tmp_path / 'check'), PYTHON=python, PATH=path)
    assert done.returncode == 1
    assert 'did not end in time' in done.stdout
    assert 'tests' not in stages_of(tmp_path / 'check')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_the_gpu_script_without_a_gpu(tmp_path):
    done = check_gpu('--output', str(tmp_path / 'check'))
    assert done.returncode == 1
    assert 'torch sees no GPU' in done.stdout
    assert 'machine    FAILED' in (tmp_path / 'check' / 'summary.txt').read_text()


def test_geometric_mean():
    assert benchmark_report.geometric_mean([1, 4, None]) == pytest.approx(2)
    assert benchmark_report.geometric_mean([None]) is None
