"""The choice between op and native convolution: tables, what follows from them, forcing, compile."""

import logging
import math
import platform
import re
from pathlib import Path

import pytest
import torch
from op_cases import RecordedCalls, reason_to_skip
from torch._subclasses.fake_tensor import FakeTensorMode

from unireplknet_ops import depthwise_conv2d, dispatch, library, tuning_tables
from unireplknet_ops.dispatch import choose_implementation, explain
from unireplknet_ops.errors import UserError
from unireplknet_ops.tuning_tables import Cell, TuningTable

needs_op = pytest.mark.skipif(reason_to_skip('cpu') is not None, reason='no compiled op')

PROBLEM = dict(
    device_type='cpu',
    dtype=torch.float32,
    kernel_size=(13, 13),
    dilation=1,
    batch=8,
    channels=64,
    height=28,
    width=28,
    channels_last=False,
    needs_grad=False,
)
FAST, SLOW = 2.0, 0.5


def make_cells(speed_up, kernels=((3, 1), (13, 1), (31, 1), (3, 2))):
    """Cells on a grid; `speed_up(kernel size, dilation, side)` is of the forward pass.

    The gradient of the input is faster where the forward is slower, that of the filter always.
    """
    return tuple(
        Cell(kernel, dilation, side, side, batch, 64, forward, round(1 / forward, 2), FAST)
        for kernel, dilation in kernels
        for batch, side in ((1, 7), (8, 28), (8, 56))
        for forward in [speed_up(kernel, dilation, side)]
    )


def make_table(cells, level='avx2', device='A CPU', dtypes=('float32',), **fields):
    layout = fields.pop('layout', 'contiguous')
    return TuningTable(
        device_type=fields.pop('device_type', 'cpu'),
        level=level,
        device=device,
        machine=fields.pop('machine', 'x86_64'),
        torch='2.11.0',
        date='2026-11-20',
        command='tune',
        cells={(dtype, layout): tuple(sorted(cells)) for dtype in dtypes},
        **fields,
    )


def make_gpu_table(level, device, speed_up):
    return make_table(make_cells(lambda *_: speed_up), level, device, device_type='cuda')


def processor(monkeypatch, level):
    """What the op says of this machine's processor."""
    monkeypatch.setattr(torch.ops.unireplknet, 'cpu_isa', lambda: level, raising=False)


@pytest.fixture
def op_can_run(monkeypatch):
    monkeypatch.setattr(library, 'missing', lambda device_type: None)
    processor(monkeypatch, 'avx2')
    monkeypatch.setattr(platform, 'machine', lambda: 'x86_64')
    monkeypatch.delenv('UNIREPLKNET_DWCONV', raising=False)


@pytest.fixture
def install(op_can_run, monkeypatch, tmp_path):
    """Makes tables of the given cells or tables the only ones."""
    monkeypatch.setenv('UNIREPLKNET_TUNING_DIR', str(tmp_path))

    def install_tables(*tables):
        for old in tmp_path.glob('*.json'):
            old.unlink()
        for table in tables:
            tuning_tables.write(
                table if isinstance(table, TuningTable) else make_table(table), tmp_path
            )
        dispatch.clear_cache()

    install_tables()
    yield install_tables
    dispatch.clear_cache()


@pytest.fixture
def threads():
    """Sets the number of threads that torch reports, and resets it."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread(threads):
    threads(1)


def choose(**changes):
    return choose_implementation(**PROBLEM | changes)


def test_a_written_table_is_read_back(tmp_path):
    table = make_table(make_cells(lambda *_: FAST), dtypes=('float32', 'bfloat16'))
    path = tuning_tables.write(table, tmp_path)
    assert path.name == 'cpu-avx2.json'
    assert tuning_tables.read(path) == table
    lines = path.read_text().splitlines()
    assert sum('[3,1,7,7,' in line for line in lines) == 2, 'one cell a line'


@pytest.mark.parametrize(
    'damage',
    [
        lambda text: '',
        lambda text: text[:200],
        lambda text: '[]',
        lambda text: '{"format": 1}',
        lambda text: text.replace('"format": 2', '"format": 1'),
        lambda text: text.replace('[3,1,', '[3,"1",'),
        lambda text: text.replace('[3,1,', '[1,'),
        lambda text: text.replace('float32 contiguous', 'float32'),
        lambda text: text.replace('"level"', '"levels"'),
    ],
)
def test_a_damaged_table_is_refused_by_name(tmp_path, damage):
    path = tuning_tables.write(make_table(make_cells(lambda *_: FAST)), tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=r'cpu-avx2\.json is not a tuning table') as caught:
        tuning_tables.read(path)
    assert isinstance(caught.value, ValueError)


COMMITTED = Path(tuning_tables.__file__).with_name('tuning')


def test_the_committed_tables_are_sound():
    """One a level of x86 processors, small, named after what it holds, measured at that level."""
    tables = {path: tuning_tables.read(path) for path in COMMITTED.glob('cpu-*.json')}
    assert sorted(table.level for table in tables.values()) == sorted(tuning_tables.CPU_LEVELS)
    for path, table in tables.items():
        assert path.stem == table.name
        assert path.stat().st_size < 40_000
        assert table.machine == 'x86_64'
        assert table.command.endswith(f'--isa {table.level}')
        for dtype in ('float32', 'bfloat16', 'float16', 'float64'):
            for layout in ('contiguous', 'channels_last'):
                cells = table.cells[dtype, layout]
                assert list(cells) == sorted(set(cells))
                assert all(min(cell[:6]) >= 1 and min(cell[6:]) > 0 for cell in cells)
                shapes = [cell[:6] for cell in cells]
                assert len(shapes) == len(set(shapes))
                for dilation, kernels in ((1, {3, 5, 7, 13, 31}), (2, {5, 7}), (3, {3})):
                    assert kernels <= {cell[0] for cell in cells if cell[1] == dilation}


# Where PyTorch takes 10 to 1000 times as long as the op, or longer than anybody waited: changes of PROBLEM.
PATHOLOGICAL = (
    dict(
        dtype=torch.bfloat16,
        kernel_size=(25, 25),
        batch=1,
        channels=7,
        height=100,
        width=100,
        channels_last=True,
    ),
    dict(dtype=torch.float16, batch=2, height=56, width=56),
    dict(dtype=torch.float16, batch=2, height=56, width=56, channels_last=True),
    dict(dtype=torch.float64),
    dict(dtype=torch.float64, channels_last=True),
    dict(channels=3, kernel_size=(31, 31)),
    dict(channels=1, kernel_size=(17, 17), height=5, width=40),
    dict(height=4, width=4, dtype=torch.bfloat16),
    dict(kernel_size=(51, 5), channels_last=True),
)


@pytest.mark.parametrize('machine', ['x86_64', 'aarch64'])
@pytest.mark.parametrize('level', tuning_tables.CPU_LEVELS)
def test_nothing_that_is_slow_natively_stays_native(op_can_run, monkeypatch, level, machine):
    """With the tables of the package, on processors that have one and on those that have none."""
    processor(monkeypatch, level)
    monkeypatch.setattr(platform, 'machine', lambda: machine)
    dispatch.clear_cache()
    for changes in PATHOLOGICAL:
        for which in tuning_tables.PASSES:
            assert choose(**changes, which=which) == 'op', (changes, which)
    dispatch.clear_cache()


def test_without_a_measurement_the_op_runs_for_large_kernels_on_cpus(install):
    for kernel_size, expected in (
        ((3, 3), 'native'),
        ((5, 5), 'native'),
        ((7, 7), 'op'),
        ((5, 7), 'op'),
        ((51, 5), 'op'),
    ):
        for which in tuning_tables.PASSES:
            assert choose(kernel_size=kernel_size, which=which) == expected
    text = explain(**PROBLEM)
    assert 'nothing was measured for this dtype and layout on such a device' in text
    assert 'holds no tuning table' in text
    assert '(avx2); python -m unireplknet_ops.tune --device cpu writes it' in text
    install(make_cells(lambda *_: SLOW))
    assert choose() == 'native'
    assert choose(channels_last=True) == 'op', 'channels_last was not measured'
    assert choose(dtype=torch.bfloat16) == 'op', 'bfloat16 was not measured'
    assert choose(dtype=torch.bfloat16, kernel_size=(5, 5)) == 'native'
    install(make_cells(lambda *_: SLOW, kernels=((3, 2),)))
    assert choose() == 'op', 'only dilated kernels were measured'


def test_each_pass_is_chosen_for_itself(install):
    install(make_cells(lambda kernel, *_: FAST if kernel >= 13 else SLOW))
    passes = tuning_tables.PASSES
    assert [choose(which=which) for which in passes] == ['op', 'native', 'op']
    assert [choose(which=which, kernel_size=(3, 3)) for which in passes] == ['native', 'op', 'op']
    assert choose(needs_grad=True) == choose(needs_grad=False) == 'op'
    install(make_cells(lambda *_: 0.95))
    assert choose() == 'op', 'a tie, but for the noise'
    install(make_cells(lambda *_: 0.94))
    assert choose() == 'native'


def test_the_nearest_kernel_size_speaks(install):
    """The nearest in ratio; of a rectangle, the larger side."""
    install(make_cells(lambda kernel, *_: FAST if kernel == 13 else SLOW))
    for sizes, expected in (
        ((1, 3, 5, (3, 1), 21, 31, 63, (13, 31)), 'native'),
        ((7, 13, 19, (3, 13), (13, 3)), 'op'),
    ):
        for size in sizes:
            kernel_size = size if isinstance(size, tuple) else (size, size)
            assert choose(kernel_size=kernel_size) == expected, size


def test_rows_and_columns_of_channels_last_maps_keep_their_convolutions(install):
    """Of few taps, where PyTorch's are faster; not their gradients of the filter."""
    install(make_table(make_cells(lambda *_: FAST), layout='channels_last'))
    for size in ((1, 7), (11, 1), (3, 1)):
        line = dict(kernel_size=size, channels_last=True)
        assert choose(**line) == 'native'
        assert choose(**line, needs_grad=True, which='grad_weight') == 'op'
    for size in ((1, 13), (1, 1), (3, 7)):
        assert choose(kernel_size=size, channels_last=True) == 'op'
    install(make_cells(lambda *_: FAST))
    assert choose(kernel_size=(1, 7)) == 'op'


def test_the_nearest_number_of_elements_speaks(install, threads):
    """Whatever the shape; what counts is what a thread has."""
    install(make_cells(lambda kernel, dilation, side: FAST if side == 28 else SLOW))
    middle = {
        side: (8 * 64 * 28**2 * (8 if side == 56 else 1) * 64 * side**2) ** 0.5 for side in (7, 56)
    }
    for batch, channels, side, expected in (
        (8, 64, 28, 'op'),
        (1, 1, 1, 'native'),
        (64, 8, 28, 'op'),
        (1, 8, 224, 'op'),
        (1, 512, 28, 'op'),
        (8, 64, 200, 'native'),
        (0, 64, 28, 'native'),
    ):
        changes = dict(batch=batch, channels=channels, height=side, width=side)
        assert choose(**changes) == expected, changes
    for elements, expected in (
        (math.floor(middle[7]), 'native'),
        (math.floor(middle[7]) + 1, 'op'),
        (math.floor(middle[56]), 'op'),
        (math.floor(middle[56]) + 1, 'native'),
    ):
        assert choose(batch=1, channels=1, height=1, width=elements) == expected, elements
        threads(3)
        assert choose(batch=3, channels=1, height=1, width=elements) == expected
        threads(1)


def test_dilated_kernels_have_cells_of_their_own(install):
    install(make_cells(lambda kernel, dilation, _: FAST if dilation > 1 else SLOW))
    assert choose(kernel_size=(3, 3), dilation=3) == 'op'
    assert choose(kernel_size=(9, 9), dilation=2) == 'op'
    assert choose(kernel_size=(3, 3)) == 'native'


def test_choice_and_explanation_agree(install):
    """The bounds that the choice reads say what the cell that `explain` names says, which is the nearest."""
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(5):

        def speed_up(*_):
            return FAST if torch.rand((), generator=generator) < 0.6 else SLOW

        cells = make_cells(speed_up)
        install(cells)
        for _ in range(60):
            batch, height, width, pick = torch.randint(1, 90, (4,), generator=generator).tolist()
            kernel = (3, 5, 13, 17, 31, 33)[pick % 6]
            changes = dict(batch=batch, height=height, width=width, kernel_size=(kernel, kernel))
            changes |= dict(dilation=2 if kernel == 3 and batch % 2 else 1)

            def distance(cell, kernel=kernel, elements=batch * 64 * height * width):
                ratios = cell.kernel_size / kernel, cell.elements / elements
                return [abs(math.log(ratio)) for ratio in ratios]

            dilated = changes['dilation'] > 1
            cell = min((c for c in cells if (c.dilation > 1) == dilated), key=distance)
            text = explain(**PROBLEM | changes)
            assert text.endswith(f'\n- {cell}')
            for which, ratio in zip(tuning_tables.PASSES, cell[6:], strict=True):
                expected = 'op' if ratio >= 0.95 else 'native'
                assert choose(**changes, which=which) == expected, changes
                seen.add((which, expected))
            assert text.splitlines()[0].endswith(f': {choose(**changes)}')
    assert len(seen) == 5, 'the gradient of the filter is always faster here'


@pytest.mark.parametrize(
    'active, levels, expected',
    [
        ('avx2', ('portable', 'avx2', 'avx512'), 'avx2'),
        ('avx2', ('portable', 'avx512', 'avx512_bf16'), None),
        ('portable', ('avx2', 'avx512_bf16'), None),
        ('avx512', ('avx2', 'avx512_bf16'), None),
        ('avx512', ('avx512', 'avx512_bf16'), 'avx512'),
        ('avx512_bf16', ('avx2', 'avx512'), None),
    ],
)
def test_only_its_own_level_speaks_for_a_processor(install, monkeypatch, active, levels, expected):
    processor(monkeypatch, active)
    install(*(make_table(make_cells(lambda *_: FAST), level=level) for level in levels))
    table = tuning_tables.table_for('cpu')
    assert (table and table.level) == expected


def test_a_damaged_table_is_left_out_with_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(library.logger, 'handlers', [caplog.handler])
    monkeypatch.setattr(library.logger, 'propagate', False)
    tuning_tables.write(make_table(make_cells(lambda *_: FAST)), tmp_path)
    (tmp_path / 'cpu-portable.json').write_text('{')
    tables = tuning_tables.read_all.__wrapped__(tmp_path)
    assert [table.level for table in tables] == ['avx2']
    (record,) = caplog.records
    assert (
        record.levelname == 'WARNING'
        and 'cpu-portable.json is not a tuning table' in record.message
    )


def test_a_table_speaks_for_its_architecture_alone(install, monkeypatch):
    """The portable kernels of an x86 machine say nothing of those of an ARM one."""
    processor(monkeypatch, 'portable')
    x86 = make_table(make_cells(lambda *_: FAST), 'portable', 'An x86', machine='x86_64')
    arm = make_table(make_cells(lambda *_: SLOW), 'portable', 'An ARM', machine='aarch64')
    assert (x86.name, arm.name) == ('cpu-portable', 'cpu-aarch64-portable')
    for machine, expected in (
        ('x86_64', 'An x86'),
        ('AMD64', 'An x86'),
        ('aarch64', 'An ARM'),
        ('arm64', 'An ARM'),
    ):
        monkeypatch.setattr(platform, 'machine', lambda machine=machine: machine)
        install(x86, arm)
        assert tuning_tables.table_for('cpu').device == expected
        install(arm if expected == 'An x86' else x86)
        assert tuning_tables.table_for('cpu') is None
        assert choose(kernel_size=(13, 13)) == 'op', 'as nothing was measured'
        assert choose(kernel_size=(5, 5)) == 'native'


A10, H200, GH200 = ((8, 6), 'NVIDIA A10'), ((9, 0), 'NVIDIA H200'), ((9, 0), 'NVIDIA GH200 480GB')


@pytest.fixture
def gpus(install, monkeypatch):
    """Makes torch report these GPUs, the first of which is the current one; returns `install`."""

    def report(*devices):
        def of(device=None):
            index = torch.device('cuda' if device is None else device).index
            return devices[index or 0]

        monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
        monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda *args: of(*args)[0])
        monkeypatch.setattr(torch.cuda, 'get_device_name', lambda *args: of(*args)[1])
        return install

    return report


def test_a_gpu_borrows_no_table_of_another_capability(gpus):
    """An A10 does not take an H200's."""
    install = gpus(A10)
    install(make_gpu_table('sm_90', 'NVIDIA H200', FAST), make_gpu_table('sm_80', 'A100', FAST))
    assert tuning_tables.table_for('cuda') is None
    assert choose(device='cuda', device_type=None) == 'native'
    text = explain(**PROBLEM | dict(device_type='cuda'))
    assert 'nothing was measured' in text
    assert 'holds no tuning table for NVIDIA A10 (sm_86); python -m unireplknet_ops.tune' in text


def test_a_gpu_takes_its_own_table_or_one_of_its_capability(gpus):
    install = gpus(H200)
    sibling, own = (
        make_gpu_table('sm_90', 'NVIDIA GH200 480GB', FAST),
        make_gpu_table('sm_90', 'NVIDIA H200', SLOW),
    )
    question = PROBLEM | dict(device_type='cuda')
    install(sibling)
    assert choose_implementation(**question) == 'op'
    assert (
        "- NVIDIA H200 (sm_90) takes another device's tuning table, cuda-sm_90-nvidia-gh200-480gb "
        '(NVIDIA GH200 480GB, torch 2.11.0, 2026-11-20)'
    ) in explain(**question).splitlines()
    install(sibling, own)
    assert choose_implementation(**question) == 'native'
    assert (
        '- NVIDIA H200 (sm_90) takes its own tuning table, cuda-sm_90-nvidia-h200 (NVIDIA H200, '
        'torch 2.11.0, 2026-11-20)'
    ) in explain(**question).splitlines()
    assert choose(kernel_size=(5, 5)) == 'native', 'the CPU has no table'


def test_each_of_several_gpus_is_asked_about_itself(gpus):
    """Whichever GPU is the current one, and whatever was asked before."""
    install = gpus(A10, H200)
    install(make_gpu_table('sm_86', 'NVIDIA A10', SLOW), make_gpu_table('sm_90', 'H200', FAST))
    for device, expected in (('cuda:0', 'native'), ('cuda:1', 'op'), ('cuda', 'native')):
        assert choose(device=device, device_type=None) == expected, device
        assert choose(device=torch.device(device), device_type=None) == expected, device
    assert choose(device_type='cuda') == 'native', 'the current one'
    assert explain(**PROBLEM | dict(device='cuda:1', device_type=None)).startswith(
        '13x13 dilation 1 on (8, 64, 28, 28) contiguous float32, cuda:1, inference: op\n'
    )


@needs_op
def test_a_tensor_on_another_than_the_current_gpu(gpus):
    """Its own GPU is looked up, by the function and where it is remembered what to run."""
    install = gpus(A10, H200)
    install(make_gpu_table('sm_86', 'NVIDIA A10', SLOW), make_gpu_table('sm_90', 'H200', FAST))
    with FakeTensorMode():
        for device, expected in (('cuda:1', 'op'), ('cuda:0', 'native')) * 2:
            x = torch.zeros(8, 64, 28, 28, device=device)
            weight = torch.zeros(64, 1, 13, 13, device=device)
            with RecordedCalls() as calls:
                assert depthwise_conv2d(x, weight).device == torch.device(device)
            assert calls.implementations() == [expected]
            assert f'{device}, inference: {expected}' in explain(x, weight)


def test_one_of_device_and_device_type():
    for device, device_type in ((None, None), ('cpu', 'cpu')):
        with pytest.raises(UserError, match='give device or device_type'):
            choose(device=device, device_type=device_type)


@needs_op
@pytest.mark.parametrize(
    'slice_of', [lambda x: x[:, :64], lambda x: x[:, ::2], lambda x: x[:, :, 1:, 2:]]
)
def test_a_slice_of_channels_last_is_channels_last(install, slice_of):
    """It is for the kernels: the choice reads the same table."""
    install(make_table(make_cells(lambda *_: FAST), layout='channels_last'))
    x = slice_of(torch.zeros(8, 80, 30, 30).to(memory_format=torch.channels_last))
    weight = torch.zeros(x.shape[1], 1, 5, 5)
    assert 'channels_last float32' in explain(x, weight)
    with RecordedCalls() as calls:
        depthwise_conv2d(x, weight)
        depthwise_conv2d(x.contiguous(), weight)
    assert calls.implementations() == ['op', 'native']


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_cuda_without_and_with_a_table(monkeypatch, tmp_path):
    """On a real GPU, whatever tables there are: the name, the level, and what the table decides."""
    monkeypatch.setenv('UNIREPLKNET_TUNING_DIR', str(tmp_path))
    dispatch.clear_cache()
    assert library.missing('cuda') is None
    assert choose(device_type='cuda') == 'native'
    level, device = (f('cuda') for f in (tuning_tables.device_level, tuning_tables.device_name))
    assert re.fullmatch(r'sm_\d+', level)
    table = make_gpu_table(level, device, FAST)
    tuning_tables.write(table, tmp_path)
    dispatch.clear_cache()
    assert tuning_tables.table_for('cuda') == table
    assert choose(device_type='cuda') == 'op'
    assert choose(device_type='cuda', which='grad_input') == 'native'
    dispatch.clear_cache()


def test_where_the_op_cannot_run_the_native_path_does(install, monkeypatch):
    install(make_cells(lambda *_: FAST))
    for changes, obstacle in (
        (dict(kernel_size=(13, 12)), 'even'),
        (dict(kernel_size=(65, 65)), 'above 63'),
        (dict(kernel_size=(13, 13), dilation=2), 'above 9'),
        (dict(kernel_size=(3, 3), dilation=16), 'above 15'),
        (dict(dtype=torch.int8), 'torch.int8'),
    ):
        assert choose(**changes) == 'native'
        assert obstacle in explain(**PROBLEM | changes)
    monkeypatch.setattr(library, 'missing', lambda device_type: 'the library was not built')
    dispatch.clear_cache()
    assert choose() == 'native'
    assert 'the op cannot run: the library was not built' in explain(**PROBLEM)


def test_forcing(install, monkeypatch):
    monkeypatch.setenv('UNIREPLKNET_DWCONV', 'op')
    assert choose() == 'op'
    assert 'UNIREPLKNET_DWCONV=op overrides' in explain(**PROBLEM)
    with pytest.raises(UserError, match=r'UNIREPLKNET_DWCONV=op.*13x12 is even') as caught:
        choose(kernel_size=(13, 12))
    assert isinstance(caught.value, RuntimeError)
    assert 'an error: UNIREPLKNET_DWCONV=op' in explain(**PROBLEM | dict(kernel_size=(13, 12)))
    monkeypatch.setattr(library, 'missing', lambda device_type: 'the library was not built')
    with pytest.raises(RuntimeError, match=r'UNIREPLKNET_DWCONV=op.*the library was not built'):
        choose(batch=9)

    install(make_cells(lambda *_: FAST))
    monkeypatch.setattr(library, 'missing', lambda device_type: None)
    monkeypatch.setenv('UNIREPLKNET_DWCONV', '')
    assert choose() == 'op'
    monkeypatch.setenv('UNIREPLKNET_DWCONV', 'native')
    assert choose() == 'native'
    assert choose(kernel_size=(13, 12)) == 'native'
    monkeypatch.setenv('UNIREPLKNET_DWCONV', 'fast')
    with pytest.raises(
        UserError, match='UNIREPLKNET_DWCONV=fast is not known: choose native or op'
    ) as caught:
        choose()
    assert isinstance(caught.value, ValueError)


def test_explain_takes_tensors(install):
    install(make_cells(lambda *_: FAST))
    x, weight = torch.zeros(8, 64, 28, 28), torch.zeros(64, 1, 13, 13, requires_grad=True)
    text = explain(x, weight)
    assert 'training: forward op, grad_input native, grad_weight op\n' in text
    assert "takes another device's tuning table, cpu-avx2 (A CPU, torch 2.11.0" in text
    with torch.no_grad():
        text = explain(x, weight)
    assert 'inference: op\n' in text
    assert text.endswith(
        '- 13x13 dilation 1, map 28x28, batch 8, channels 64: forward 2x, grad-input 0.5x, grad-weight 2x'
    )
    text = explain(x.to(memory_format=torch.channels_last), weight, needs_grad=False)
    assert 'channels_last float32' in text
    assert 'nothing was measured for this dtype and layout' in text
    text = explain(torch.zeros(1, 32, 14, 14), torch.zeros(32, 1, 3, 3), dilation=2)
    assert '(1, 32, 14, 14)' in text
    assert '- 3x3 dilation 2, map 7x7, batch 1' in text


def test_explain_counts_autocast_and_the_bias(install):
    install(make_cells(lambda *_: FAST))
    x, weight = torch.zeros(8, 64, 28, 28), torch.zeros(64, 1, 13, 13)
    assert 'contiguous float32' in explain(x, weight)
    with torch.autocast('cpu', torch.bfloat16):
        assert 'contiguous bfloat16' in explain(x, weight)
    assert 'inference: op' in explain(x, weight)
    assert 'training: forward op' in explain(x, weight, torch.zeros(64, requires_grad=True))
    with pytest.raises(ValueError, match='both x and weight'):
        explain(x)
    with pytest.raises(ValueError, match=r'got \(64, 28, 28\)'):
        explain(x[0], weight)


def test_each_choice_is_logged_once_at_debug_level(install, caplog, monkeypatch):
    monkeypatch.setattr(library.logger, 'handlers', [caplog.handler])
    monkeypatch.setattr(library.logger, 'propagate', False)
    caplog.set_level(logging.DEBUG, logger=library.logger.name)
    weight = torch.zeros(16, 1, 3, 3)
    for batch in (1, 1, 2):
        depthwise_conv2d(torch.zeros(batch, 16, 8, 8), weight)
    assert [record.getMessage() for record in caplog.records] == [
        f'Depthwise convolution 3x3 dilation 1 on ({batch}, 16, 8, 8) contiguous float32, cpu with 1 '
        'threads, inference: native, since nothing was measured for this dtype and layout on such a '
        'device'
        for batch in (1, 2)
    ]


@pytest.mark.parametrize('symbolic_weight', [False, True])
@pytest.mark.parametrize(
    'where', [lambda x: dict(device=x.device), lambda x: dict(device_type=x.device.type)]
)
def test_compiled_with_symbolic_sizes(install, symbolic_weight, where):
    """No graph break; the guards are ranges: sizes with the same answer share a graph."""
    install(make_cells(lambda kernel, dilation, side, *_: SLOW if side == 7 else FAST))

    def function(x, weight):
        batch, channels, height, width = x.shape
        choice = choose_implementation(
            **where(x),
            dtype=x.dtype,
            kernel_size=tuple(weight.shape[2:]),
            dilation=1,
            batch=batch,
            channels=channels,
            height=height,
            width=width,
            channels_last=False,
            needs_grad=x.requires_grad,
        )
        return x + 1 if choice == 'op' else x - 1

    torch._dynamo.reset()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    expected = {}
    for height, width in ((7, 8), (8, 9), (30, 31), (40, 41), (57, 99), (29, 45), (9, 8)):
        x = torch.zeros(5, 64, height, width)
        weight = torch.zeros(64, 1, 13, 13)
        if not symbolic_weight:
            torch._dynamo.mark_static(weight)
        assert torch.equal(compiled(x, weight), function(x, weight)), (height, width)
        expected[height, width] = function(x, weight).flatten()[0].item()
    assert set(expected.values()) == {1, -1}
    assert len(graphs) == 2, 'one for the op, one for the native path'


def test_explain_refuses_what_the_convolution_refuses():
    x, weight = torch.randn(1, 4, 9, 9), torch.randn(4, 1, 3, 3)
    assert dispatch.explain(x, weight, dilation=(2, 2)) == dispatch.explain(x, weight, dilation=2)
    for arguments in (dict(weight=weight[:3]), dict(dilation=(1, 2)), dict(x=x[0])):
        with pytest.raises(UserError):
            dispatch.explain(**{**dict(x=x, weight=weight), **arguments})
    with pytest.raises(UserError, match='explain takes bias, dilation and needs_grad, not batch'):
        dispatch.explain(x, weight, batch=3)
