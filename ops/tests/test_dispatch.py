"""The choice between op and native convolution: tables, what follows from them, forcing, compile."""

import logging
import re
import timeit
from pathlib import Path

import pytest
import torch

from unireplknet_ops import dispatch, library, tuning_tables
from unireplknet_ops.dispatch import choose_implementation, explain
from unireplknet_ops.tuning_tables import Cell, TuningTable

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


def make_cells(speed_up, kernels=((3, 1), (13, 1), (31, 1), (3, 2), (3, 5))):
    """Cells on a grid; `speed_up(kernel size, dilation, side, planes, threads)` is of the forward pass.

    The backward passes are faster where the forward is slower, so that training differs.
    """
    return tuple(
        Cell(kernel, dilation, side, side, batch, channels, threads, *speed)
        for kernel, dilation in kernels
        for side in (7, 28, 56)
        for batch, channels in ((1, 32), (8, 64))
        for threads in (1, 4)
        for forward in [speed_up(kernel, dilation, side, batch * channels, threads)]
        for speed in [(forward, 1 / forward, 1 / forward, round(1 / forward, 2))]
    )


def make_table(cells, level='avx2', device='A CPU', dtypes=('float32',), device_type='cpu'):
    groups = {(dtype, 'contiguous'): tuple(sorted(cells)) for dtype in dtypes}
    return TuningTable(device_type, level, device, '2.11.0', '2026-11-20', 'tune', groups)


@pytest.fixture
def op_can_run(monkeypatch):
    monkeypatch.setattr(library, 'missing', lambda device_type: None)
    monkeypatch.setattr(tuning_tables, 'device_level', lambda device_type: 'avx2')
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
    assert sum('[3,1,7,7,' in line for line in lines) == 2 * 4, 'one cell a line'


@pytest.mark.parametrize('text', ['', '{"format": 1}', '{"format": 99, "columns": []}', '[]'])
def test_a_damaged_table_is_refused_by_name(tmp_path, text):
    path = tmp_path / 'cpu-avx2.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=r'cpu-avx2\.json is not a tuning table'):
        tuning_tables.read(path)


def test_the_committed_tables_are_sound():
    """Every table of the package reads, is small, and is named after what it holds."""
    for path in Path(tuning_tables.__file__).with_name('tuning').glob('*.json'):
        table = tuning_tables.read(path)
        assert path.stem == table.name
        assert path.stat().st_size < 100_000
        for cells in table.cells.values():
            assert list(cells) == sorted(set(cells))
            assert all(min(cell[:7]) >= 1 and min(cell[7:]) > 0 for cell in cells)


def test_without_a_table_the_native_path_runs(install):
    assert choose() == 'native'
    assert 'no tuning table for cpu' in explain(**PROBLEM)
    assert 'ops.tune --device cpu' in explain(**PROBLEM)


def test_the_op_runs_where_it_was_measured_to_be_faster(install):
    install(make_cells(lambda kernel, *_: FAST if kernel >= 13 else SLOW))
    assert choose() == 'op'
    assert choose(kernel_size=(31, 31)) == 'op'
    assert choose(kernel_size=(3, 3)) == 'native'
    assert choose(channels_last=True) == 'native', 'channels_last was not measured'
    assert choose(dtype=torch.bfloat16) == 'native', 'bfloat16 was not measured'


def test_training_rests_on_all_passes_and_inference_on_the_forward(install):
    install(make_cells(lambda kernel, *_: FAST if kernel >= 13 else SLOW))
    assert choose(needs_grad=True) == 'native'
    assert choose(kernel_size=(3, 3), needs_grad=True) == 'op'


def test_a_tie_stays_native(install):
    install(make_cells(lambda *_: 1.04))
    assert choose() == 'native'
    install(make_cells(lambda *_: 1.05))
    assert choose() == 'op'


@pytest.mark.parametrize(
    'slow, changes',
    [
        (lambda kernel, *_: kernel == 13, dict(kernel_size=(17, 17))),
        (lambda kernel, *_: kernel == 31, dict(kernel_size=(17, 17))),
        (lambda kernel, dilation, side, *_: side == 7, dict(height=14, width=14)),
        (lambda kernel, dilation, side, *_: side == 28, dict(height=14, width=14)),
        (lambda kernel, dilation, side, planes, threads: planes == 32, dict(batch=2)),
        (lambda kernel, dilation, side, planes, threads: planes == 512, dict(batch=2)),
        (lambda kernel, dilation, side, planes, threads: threads == 4, dict(threads=2)),
        (lambda kernel, dilation, side, planes, threads: threads == 1, dict(threads=2)),
    ],
)
def test_one_slow_neighbour_keeps_the_native_path(install, threads, slow, changes):
    """Between measured values both must win; the very cell of a slow shape is not asked elsewhere."""
    threads(changes.pop('threads', 1))
    install(make_cells(lambda *_: FAST))
    assert choose(**changes) == 'op'
    install(make_cells(lambda *shape: SLOW if slow(*shape) else FAST))
    assert choose(**changes) == 'native'


def test_a_cell_speaks_for_shapes_near_its_own(install):
    install(make_cells(lambda kernel, dilation, side, *_: FAST if side == 28 else SLOW))
    for side, expected in ((28, 'op'), (31, 'op'), (26, 'op'), (32, 'native'), (24, 'native')):
        assert choose(height=side, width=side) == expected, side
    assert choose(height=16, width=49) == 'op', 'the same area'


def test_near_cells_meet_half_way(install):
    cells = [cell for cell in make_cells(lambda *_: FAST) if cell.height == 28]
    near = [cell._replace(height=28, width=32, forward=SLOW) for cell in cells]
    install((*cells, *near))
    for width, expected in ((28, 'op'), (29, 'op'), (30, 'native'), (32, 'native')):
        assert choose(height=28, width=width) == expected, width


def test_outside_the_measured_shapes(install):
    """Smaller than measured is native; larger follows the outermost cell."""
    install(make_cells(lambda *_: FAST))
    assert choose(height=200, width=336, batch=64) == 'op'
    assert choose(kernel_size=(51, 51)) == 'op'
    for changes in (
        dict(kernel_size=(1, 1)),
        dict(height=6, width=6),
        dict(height=5, width=200),
        dict(height=200, width=1),
        dict(batch=1, channels=24),
        dict(channels=15),
        dict(batch=0),
    ):
        assert choose(**changes) == 'native', changes
    install(make_cells(lambda kernel, dilation, side, *_: SLOW if side == 56 else FAST))
    assert choose(height=200, width=336) == 'native'


def test_more_threads_than_measured_need_more_planes(install, threads):
    install(make_cells(lambda *_: FAST))
    threads(4)
    assert choose(batch=1, channels=32) == 'op'
    threads(8)
    assert choose(batch=1, channels=32) == 'native'
    assert choose(batch=2, channels=32) == 'op'


def test_a_rectangular_kernel_needs_both_squares(install):
    install(make_cells(lambda kernel, *_: SLOW if kernel == 3 else FAST))
    assert choose(kernel_size=(13, 31)) == 'op'
    assert choose(kernel_size=(13, 3)) == choose(kernel_size=(3, 13)) == 'native'


def test_dilated_kernels_have_cells_of_their_own(install):
    install(make_cells(lambda kernel, dilation, *_: FAST if dilation > 1 else SLOW))
    assert choose(kernel_size=(3, 3), dilation=3) == 'op'
    assert choose(kernel_size=(3, 3)) == 'native'
    install(make_cells(lambda kernel, dilation, *_: SLOW if dilation == 5 else FAST))
    assert choose(kernel_size=(3, 3), dilation=2) == 'native', 'all measured dilations must agree'
    install(make_cells(lambda *_: FAST, kernels=((13, 1),)))
    assert choose(kernel_size=(3, 3), dilation=3) == 'native', 'none was measured'


def test_a_cell_too_slow_to_measure_follows_fewer_planes(install):
    cells = make_cells(lambda *_: FAST)
    skipped = tuple(c for c in cells if not (c.kernel_size == 31 and c.planes == 512))
    install(skipped)
    assert choose(kernel_size=(31, 31)) == 'op'
    install(tuple(c for c in cells if not (c.kernel_size == 31 and c.height == 28)))
    assert choose(kernel_size=(31, 31)) == 'native', 'nothing was measured on this map'


def random_cells(generator):
    def speed_up(*_):
        return 1.5 if torch.rand((), generator=generator) < 0.7 else 0.8

    return make_cells(speed_up)


def test_choice_and_explanation_agree(install):
    """The intervals that the choice reads say what the cells that `explain` lists say."""
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(5):
        cells = random_cells(generator)
        install(cells)
        for _ in range(100):
            draw = torch.randint(1, 90, (4,), generator=generator).tolist()
            changes = dict(batch=draw[0], height=draw[1], width=draw[2], needs_grad=draw[3] > 45)
            kernel = (3, 5, 13, 17, 31, 33)[draw[3] % 6]
            dilation = 2 if kernel == 3 and draw[0] % 2 else 1
            changes |= dict(kernel_size=(kernel, kernel), dilation=dilation)
            surrounding = tuning_tables.surrounding_cells(
                cells,
                kernel_size=kernel,
                dilation=dilation,
                threads=1,
                planes=draw[0] * 64,
                area=draw[1] * draw[2],
            )
            is_faster = bool(surrounding) and min(draw[1:3]) >= tuning_tables.MINIMUM_SIDE
            for cell in surrounding:
                is_faster &= tuning_tables.is_faster(cell, changes['needs_grad'])
            assert choose(**changes) == ('op' if is_faster else 'native'), changes
            seen.add(is_faster)
            text = explain(**PROBLEM | changes)
            assert text.splitlines()[0].endswith(': op' if is_faster else ': native')
    assert seen == {True, False}


@pytest.mark.parametrize(
    'active, levels, expected',
    [
        ('avx2', ('portable', 'avx2', 'avx512'), 'avx2'),
        ('avx2', ('portable', 'avx512', 'avx512_bf16'), None),
        ('portable', ('avx2', 'avx512_bf16'), None),
        ('avx512', ('avx2', 'avx512_bf16'), 'avx512_bf16'),
        ('avx512', ('avx512', 'avx512_bf16'), 'avx512'),
        ('avx512_bf16', ('avx2', 'avx512'), 'avx512'),
    ],
)
def test_only_related_levels_speak_for_a_processor(install, monkeypatch, active, levels, expected):
    monkeypatch.setattr(tuning_tables, 'device_level', lambda device_type: active)
    install(*(make_table(make_cells(lambda *_: FAST), level=level) for level in levels))
    table = tuning_tables.nearest_table('cpu')
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


def test_the_nearest_gpu_speaks(install, monkeypatch):
    monkeypatch.setattr(tuning_tables, 'device_level', lambda device_type: 'sm_90')
    monkeypatch.setattr(tuning_tables, 'device_name', lambda device_type: 'NVIDIA H200')
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 0)
    cells = tuple(cell._replace(threads=1) for cell in make_cells(lambda *_: FAST))
    cells = tuple(dict.fromkeys(cells))

    def table(level, device, speed_up=FAST):
        return make_table(
            tuple(cell._replace(forward=speed_up) for cell in cells),
            level,
            device,
            device_type='cuda',
        )

    assert choose(device_type='cuda') == 'native', 'no GPU was measured'
    install(table('sm_80', 'NVIDIA A100'), table('sm_120', 'NVIDIA RTX 5090'))
    assert tuning_tables.nearest_table('cuda').device == 'NVIDIA A100'
    assert choose(device_type='cuda') == 'op'
    install(table('sm_90', 'NVIDIA GH200'), table('sm_90', 'NVIDIA H200', SLOW))
    assert tuning_tables.nearest_table('cuda').device == 'NVIDIA H200'
    assert choose(device_type='cuda') == 'native'
    assert choose() == 'native', 'the CPU has no table'


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
    cells = {cell._replace(threads=1) for cell in make_cells(lambda *_: FAST)}
    table = make_table(tuple(cells), level, device, device_type='cuda')
    tuning_tables.write(table, tmp_path)
    dispatch.clear_cache()
    assert tuning_tables.nearest_table('cuda') == table
    assert choose(device_type='cuda') == 'op'
    assert choose(device_type='cuda', needs_grad=True) == 'native'
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
    with pytest.raises(RuntimeError, match=r'UNIREPLKNET_DWCONV=op.*13x12 is even'):
        choose(kernel_size=(13, 12))
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
        ValueError, match='UNIREPLKNET_DWCONV=fast is not known: choose native or op'
    ):
        choose()


def test_explain_takes_tensors(install):
    install(make_cells(lambda *_: FAST))
    x, weight = torch.zeros(8, 64, 28, 28), torch.zeros(64, 1, 13, 13, requires_grad=True)
    assert 'training: native' in explain(x, weight)
    with torch.no_grad():
        text = explain(x, weight)
    assert 'inference: op' in text
    assert 'yes: 13x13 dilation 1, map 28x28, batch 8, channels 64, threads 1: forward 2x' in text
    text = explain(x.to(memory_format=torch.channels_last), weight, needs_grad=False)
    assert 'channels_last float32' in text
    assert 'none was measured around this shape' in text
    text = explain(torch.zeros(1, 32, 14, 14), torch.zeros(32, 1, 3, 3), dilation=2)
    assert '(1, 32, 14, 14)' in text
    assert text.count('yes: ') == 4, 'two maps, two dilations'


def test_explain_counts_autocast_and_the_bias(install):
    install(make_cells(lambda *_: FAST))
    x, weight = torch.zeros(8, 64, 28, 28), torch.zeros(64, 1, 13, 13)
    assert 'contiguous float32' in explain(x, weight)
    with torch.autocast('cpu', torch.bfloat16):
        assert 'contiguous bfloat16' in explain(x, weight)
    assert 'inference: op' in explain(x, weight)
    assert 'training: native' in explain(x, weight, torch.zeros(64, requires_grad=True))
    with pytest.raises(ValueError, match='both x and weight'):
        explain(x)
    with pytest.raises(ValueError, match=r'got \(64, 28, 28\)'):
        explain(x[0], weight)


def test_each_choice_is_logged_once_at_debug_level(install):
    class Records(logging.Handler):
        def __init__(self):
            super().__init__()
            self.messages = []

        def emit(self, record):
            self.messages.append((record.levelno, record.getMessage()))

    records = Records()
    logger = library.logger
    level = logger.level
    logger.addHandler(records)
    logger.setLevel(logging.DEBUG)
    try:
        choose()
        choose()
        choose(batch=2)
    finally:
        logger.removeHandler(records)
        logger.setLevel(level)
    expected = (
        '13x13 dilation 1 on (8, 64, 28, 28) contiguous float32, cpu with 1 threads, inference'
    )
    assert records.messages[0] == (logging.DEBUG, f'Depthwise convolution {expected}: native')
    assert len(records.messages) == 2


def test_a_repeated_choice_is_cheap(install):
    """Under 2 microseconds on an idle machine; the bound leaves room for a loaded one."""
    choose()
    seconds = min(timeit.repeat(lambda: choose_implementation(**PROBLEM), number=1000, repeat=20))
    assert seconds / 1000 < 10e-6


@pytest.mark.parametrize('symbolic_weight', [False, True])
def test_compiled_with_symbolic_sizes(install, symbolic_weight):
    """No graph break; the guards are ranges: sizes with the same answer share a graph."""
    install(make_cells(lambda kernel, dilation, side, *_: SLOW if side == 7 else FAST))

    def function(x, weight):
        batch, channels, height, width = x.shape
        choice = choose_implementation(
            device_type=x.device.type,
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
