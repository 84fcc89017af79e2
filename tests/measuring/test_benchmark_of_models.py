"""Measuring groups of variants: turns, wrong outputs, failures, Ctrl-C; what the reports make of it."""

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH

from unireplknet_mm.errors import ArgumentError, UserError
from unireplknet_mm.measuring import benchmark, machine, paper, report, tables
from unireplknet_mm.measuring.benchmark import (
    Benchmark,
    Group,
    Progress,
    Result,
    keep_better_layouts,
    percentile,
    speed_up,
)
from unireplknet_mm.measuring.catalogue import UniRepLKNetClassifier, classifier
from unireplknet_mm.measuring.variants import Variant

BUILD = classifier(lambda: UniRepLKNetClassifier(SMALL_ARCH, num_classes=7))
SMALL = Variant('small', batch_size=2, size=(32, 32))


class Folds(torch.nn.Module):
    """A model whose folded form is another function."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x.mean((2, 3)) * self.weight

    def switch_to_deploy(self):
        self.weight.data *= 2


def result(model='a', seconds=(1.0, 1.0), difference=0.0, group='g', **changes) -> Result:
    variant = Variant(model, batch_size=4, **changes)
    return Result(
        group,
        variant,
        1_000_000,
        list(seconds),
        first_seconds=3.0,
        peak_memory=2**21,
        difference=difference,
    )


def test_a_group_is_measured_in_turns(monkeypatch):
    calls = []
    real = benchmark.timed_call
    monkeypatch.setattr(
        benchmark, 'timed_call', lambda f, device: calls.append(f) or real(f, device)
    )
    group = Group('two', (SMALL, SMALL._replace(layout='channels_last')))
    said = []
    running = Benchmark(
        {'small': BUILD}, rounds=3, warm_up=1, progress=lambda *line: said.append(line)
    )
    first, second = running.run([group])
    timed = calls[2:]  # the first of each compares
    assert len(timed) == 6
    assert timed[0] is timed[2] is timed[4] is not timed[1]
    for one in (first, second):
        assert len(one.seconds) == 3 and one.agrees and not one.is_wrong
        weights = 4 * one.parameters
        assert weights < one.peak_memory < 100 * weights
    assert first.throughput == 2 / first.median
    assert said[0] == ('two: preparing small', None)
    assert said[-1][0] == 'two: round 3 of 3' and said[-1][1] == pytest.approx(0, abs=1e-3)


def test_wrong_outputs_get_no_speed_up():
    group = Group('g', tuple(Variant('folds', form, size=(8, 8)) for form in ('train', 'deploy')))
    results = Benchmark({'folds': classifier(Folds)}, rounds=2, warm_up=0, memory=False).run(
        [group]
    )
    right, wrong = results
    assert right.agrees and wrong.is_wrong
    assert speed_up(wrong, right) is None and speed_up(right, wrong) is None
    row = report.markdown(results).splitlines()[-1]
    assert 'outputs differ by' in row and 'x |' not in row
    assert report.wrong_results(results) == [
        f'g: folds differs from its plain form by {wrong.difference:.1e} (relative)'
    ]


def test_what_cannot_run_is_left_out_and_the_rest_is_measured():
    def fails():
        raise RuntimeError('no such kernel\nand a stack trace')

    group = Group('g', (SMALL._replace(model='fails'), SMALL))
    results = Benchmark({'small': BUILD, 'fails': fails}, rounds=1, warm_up=0).run([group])
    assert results[0].left_out == 'RuntimeError: no such kernel'
    assert len(results[1].seconds) == 1
    lines = report.markdown(results).splitlines()
    assert 'RuntimeError: no such kernel' in lines[4]
    assert lines[5].endswith('| - |'), 'there is nothing to compare with'


def test_control_c_keeps_what_was_measured(monkeypatch):
    real, calls = benchmark.timed_call, []

    def interrupted(function, device):
        calls.append(function)
        if len(calls) == 6:  # two that compare; then the fourth of the timed ones
            raise KeyboardInterrupt
        return real(function, device)

    monkeypatch.setattr(benchmark, 'timed_call', interrupted)
    groups = [Group('g', (SMALL, SMALL._replace(batch_size=1))), Group('later', (SMALL,))]
    running = Benchmark({'small': BUILD}, rounds=5, warm_up=0, memory=False)
    results = running.run(groups)
    assert running.interrupted
    assert [len(one.seconds) for one in results] == [2, 1]
    assert torch.get_num_threads() >= 1 and 'later' not in report.markdown(results)


def test_statistics():
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([0.0, 10.0], 95) == pytest.approx(9.5)
    assert percentile([5.0], 95) == 5.0
    one = result(seconds=[1.0, 2.0, 3.0, 4.0, 5.0])
    assert (one.median, one.throughput) == (3.0, 4 / 3)
    assert one.p95 == pytest.approx(4.8)
    assert one.spread == pytest.approx(2 / 3)
    assert speed_up(result(seconds=[0.5]), result(seconds=[1.0])) == 2.0


def test_the_better_layout_is_the_faster_one_that_is_right():
    slow = result(seconds=[2.0])
    fast = result(seconds=[1.0], layout='channels_last')
    wrong = result(seconds=[0.1], layout='channels_last', difference=0.5)
    other = result('b', seconds=[9.0])
    assert keep_better_layouts([slow, other, fast]) == [fast, other]
    assert keep_better_layouts([slow, wrong]) == [slow]


def test_markdown():
    results = [result(), result('b', seconds=[0.5, 0.5], layout='channels_last', compiled=True)]
    assert report.markdown(results).splitlines() == [
        'g:',
        '',
        '|  | parameters | images/s | p50 | p95 | spread | peak memory | times the first | first call |',
        '|---|---|---|---|---|---|---|---|---|',
        '| a | 1.0 M | 4 | 1000 ms | 1000 ms | 0% | 2 MiB | 1.00x | 3.0 s |',
        '| b, channels_last, compiled | 1.0 M | 8 | 500 ms | 500 ms | 0% | 2 MiB | 2.00x | 3.0 s |',
    ]


def test_csv():
    left_out = Result('g', Variant('c'), left_out='RuntimeError: no, it cannot')
    rows = list(csv.DictReader(io.StringIO(report.to_csv([result(), left_out]))))
    assert tuple(rows[0]) == report.COLUMNS
    assert (rows[0]['model'], rows[0]['height'], rows[0]['p50_ms']) == ('a', '224', '1000.0')
    assert (rows[0]['images_per_second'], rows[0]['agrees']) == ('4.0', 'True')
    assert (rows[1]['p50_ms'], rows[1]['left_out']) == ('', 'RuntimeError: no, it cannot')


def test_json():
    read = json.loads(report.to_json([result(seconds=[1.0, 2.0])], dict(device='d'), 'command'))
    assert (read['machine'], read['command']) == (dict(device='d'), 'command')
    infinite = report.to_json([result(difference=float('inf'))], {}, '')
    assert json.loads(infinite)['measurements'][0]['difference'] == 'inf'
    (one,) = read['measurements']
    assert one['seconds'] == [1.0, 2.0] and one['dtype'] == 'fp32' and one['p50_ms'] == 1500.0


def test_picture(tmp_path):
    path = tmp_path / 'picture.png'
    report.draw(
        [result('unireplknet_t'), result('timm:convnext_tiny', seconds=[2.0])], path, 'title'
    )
    assert path.read_bytes().startswith(b'\x89PNG') and path.stat().st_size > 5000
    with pytest.raises(ArgumentError, match='no measured model has a published accuracy'):
        report.draw([result('unireplknet_t', difference=1.0), result('mine')], path, 'title')
    assert [file.name for file in tmp_path.iterdir()] == ['picture.png']


@pytest.mark.parametrize(
    ('name', 'model', 'changes', 'message'),
    [
        ('picture.foo', 'unireplknet_t', {}, r'picture\.foo: its name has to end in \.\w+, '),
        ('picture.png', 'mine', {}, 'none of the models has a published accuracy'),
        ('picture.png', 'unireplknet_t', dict(size=(96, 96)), 'published accuracy at that resol'),
        ('picture.png', 'unireplknet_t', dict(mode='step'), 'published accuracy'),
    ],
)
def test_a_picture_that_cannot_be_is_refused_beforehand(name, model, changes, message):
    with pytest.raises(ArgumentError, match=message):
        report.check_picture(Path(name), [Variant(model, **changes)])


def test_a_picture_that_can_be():
    report.check_picture(Path('a.PNG'), [Variant('mine'), Variant('unireplknet_t')])


def test_a_section_of_a_page_is_replaced_and_others_stay(tmp_path):
    page = tmp_path / 'benchmarks.md'
    report.update_page(page, 'table5', 'first')
    report.update_page(page, 'table18', r'other \1')
    report.update_page(page, 'table5', 'second')
    text = page.read_text()
    assert text.startswith('# How fast is it?')
    assert 'first' not in text and text.count('second') == 1
    assert text.index('second') < text.index(r'other \1')


def test_progress_tells_the_time_left():
    stream = io.StringIO()
    progress = Progress(stream)
    progress('too soon to say', 1.0)
    assert stream.getvalue() == ''
    progress.last -= 11
    progress('g: round 1 of 20', 130.0)
    assert stream.getvalue() == '[0 s] g: round 1 of 20, about 2 min left\n'
    assert benchmark.duration(7500) == '2 h 05 min'


def test_a_busy_machine_is_refused(monkeypatch, tmp_path):
    stat = tmp_path / 'stat'
    monkeypatch.setattr(machine, 'PROC_STAT', stat)
    assert machine.busy_cores(0) is None

    def later(seconds):
        stat.write_text('cpu 175 0 0 125 0 0 0 0 0 0\ncpu0 0\ncpu1 0\n')

    stat.write_text('cpu 100 0 0 100 0 0 0 0 0 0\ncpu0 0\ncpu1 0\n')
    monkeypatch.setattr(machine.time, 'sleep', later)
    assert machine.busy_cores() == 1.5
    with pytest.raises(UserError, match=r'1\.5 cores of this machine are busy'):
        machine.refuse_busy_machine({machine.BUSY_KEY: '1.5'})
    machine.refuse_busy_machine({machine.BUSY_KEY: '0.1'})
    machine.refuse_busy_machine({})


def test_table_5_compares_with_t_and_names_who_is_missing(monkeypatch):
    monkeypatch.setattr(tables.catalogue, 'has_timm', lambda: False)
    plan = tables.table_5_plan(None, 'fp32', ['NCHW'], 1, 'cpu')
    at_224, at_384 = plan.groups
    assert (
        at_224.variants[0].model == 'unireplknet_t' and at_384.variants[0].model == 'unireplknet_s'
    )
    assert {v.batch_size for v in at_224.variants} == {8} and {
        v.batch_size for v in at_384.variants
    } == {1}
    assert set(plan.builds) == {
        row.model for row in paper.TABLE_5 if tables.catalogue.is_own(row.model)
    }
    assert 'ConvNeXt V2-A' in plan.left_out[1] and 'pip install timm' in plan.left_out[1]

    results = [result('unireplknet_t', seconds=[1.0]), result('unireplknet_n', seconds=[0.5])]
    text = tables.table_5_markdown(results, plan.left_out)
    row = next(line for line in text.splitlines() if line.startswith('| UniRepLKNet-N'))
    assert row == '| UniRepLKNet-N | 224² | 81.6 | 2807 | 1.56x | 1.0 M | 8 | 2.00x | 2 MiB |'
    assert '| ConvNeXt-T | 224² | 82.1 | - | - | - | not measured | - | - |' in text
    assert 'Left out: InternImage' in text


def test_table_5_is_of_models_that_exist():
    timm = pytest.importorskip('timm', reason='timm is not installed')
    own = [row for row in paper.TABLE_5 if tables.catalogue.is_own(row.model)]
    assert len(own) >= 13
    assert all(timm.is_model(row.model) for row in paper.TABLE_5 if row not in own)


def test_table_18():
    plan = tables.table_18_plan(None, 'fp32', ['NCHW'], 1, 'cpu')
    block, single = plan.groups[0].variants
    assert block.mode == single.mode == 'step'
    rows = tables.table_18_markdown(
        [result(block.model, seconds=[2.0]), result(single.model, seconds=[1.5])]
    ).splitlines()
    assert rows[2] == '| Dilated Reparam Block | 24.6 GB | 6642 | 2 MiB | 2 |'
    assert rows[4] == '| the first over the second | 1.18 | 0.69 | 1.00 | 0.75 |'
    rows = tables.table_18_markdown([result(block.model)]).splitlines()
    assert len(rows) == 4 and rows[3].endswith('not measured |')


def test_settings_are_compared_with_their_plain_case():
    plan = tables.settings_plan('small', BUILD, 4, 1, 'cpu')
    inference, training = plan.groups
    assert {v.batch_size for v in inference.variants} == {3, 4, 5}
    assert {v.batch_size for v in training.variants} == {2, 3}
    assert len(set(inference.variants)) == len(inference.variants)

    def measured(seconds, **changes):
        return Result('g', Variant('small', batch_size=4, **changes), 1, [seconds], difference=0.0)

    text = tables.settings_markdown(
        [
            measured(0.4),
            measured(0.44, setting='no_grad'),
            measured(0.2, dtype='bf16'),
            measured(0.6, dtype='bf16', setting='no_grad'),
        ]
    )
    assert [line.split('|')[6].strip() for line in text.splitlines()[4:]] == [
        *('1.00', '1.10', '0.50', '**3.00**')
    ]


def test_table_1_on_a_small_stack(monkeypatch):
    monkeypatch.setattr(tables.Tensors, 'op', lambda self, name: self.native(name))
    times = list(
        tables.measure_table_1(
            1,
            'fp32',
            1,
            'cpu',
            lambda *line: None,
            channels=2,
            resolutions=[16],
            kernel_sizes=[3, 13],
        )
    )
    assert [(time.resolution, time.kernel_size) for time in times] == [(16, 3), (16, 13)]
    assert all(0 < time.op < 1 and 0 < time.native < 1 for time in times)
    lines = tables.table_1_markdown(times, 1).splitlines()
    assert lines[2] == '| map |  | K=3 | K=13 |'
    assert lines[4] == '| 16² | paper, PyTorch, ms | 5.6 | 36 |'
    assert lines[6] == '| 16² | paper, times faster | 1.0x | 4.8x |'

    monkeypatch.setattr(tables.Tensors, 'op', lambda self, name: 2 * self.native(name))
    (wrong,) = tables.measure_table_1(
        1, 'fp32', 1, 'cpu', lambda *line: None, channels=2, resolutions=[16], kernel_sizes=[3]
    )
    assert wrong.op is None and 'relative error' in wrong.left_out
    assert 'Wrong: forward of 3x3' in tables.table_1_markdown([wrong], 1)
