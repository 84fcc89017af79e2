"""tools/benchmark.py on a tiny model: outputs in every format, what is refused, Ctrl-C."""

import csv
import json
import os
import signal

import pytest
from tool_runs import CONFIGS

from unireplknet_mm.measuring import benchmark, machine

SMALL = CONFIGS / 'cls_small.py'
QUICK = ('--rounds', 2, '--warm-up', 0, '--threads', 1, '--device', 'cpu', '--size', 32)


def test_every_output(call, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, 'busy_cores', lambda: 0.0)
    names = ('table.md', 'rows.csv', 'times.json', 'page.md')
    options = zip(('--markdown', '--csv', '--json', '--docs'), names, strict=True)
    files = [part for option, name in options for part in (option, tmp_path / name)]
    out = call(
        'benchmark',
        *(SMALL, *QUICK, '--batch-size', 2, '--form', 'train', 'deploy', '--section', 'small'),
        *('--layout', 'better', *files),
    )
    row = next(line for line in out.splitlines() if line.startswith('| cls_small'))
    assert 'inference, batch 2, 32×32, fp32, 1 threads' in out
    page = (tmp_path / 'page.md').read_text()
    assert row in page and row in (tmp_path / 'table.md').read_text()
    assert '## small' in page and 'busy cores at start 0.0' in page
    with (tmp_path / 'rows.csv').open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(r['form'], r['layout']) for r in rows] == [
        *(('train', 'NCHW'), ('train', 'channels_last')),
        *(('deploy', 'NCHW'), ('deploy', 'channels_last')),
    ]
    read = json.loads((tmp_path / 'times.json').read_text())
    assert [len(one['seconds']) for one in read['measurements']] == [2] * 4
    assert 'torch' in read['machine']


def test_a_step_in_two_dtypes_without_memory(call):
    out = call(
        'benchmark', SMALL, *QUICK, '--mode', 'step', '--dtype', 'fp32', 'bf16', '--no-memory'
    )
    assert (
        'training step, batch 8, 32×32, fp32' in out
        and 'training step, batch 8, 32×32, bf16' in out
    )
    assert 'MiB' not in out


def test_wrong_outputs_end_with_status_1(call, monkeypatch):
    monkeypatch.setattr(benchmark, 'difference', lambda *arguments: 0.5)
    error = call('benchmark', SMALL, *QUICK, status=1)
    assert 'WRONG: inference' in error and 'differs from its plain form by 5.0e-01' in error


def test_a_model_that_fails_is_left_out_and_the_others_are_measured(call, tmp_path):
    """Whatever it raises, at whatever call."""
    (tmp_path / 'nets.py').write_text(
        'from torch import nn\n'
        'class Net(nn.Conv2d):\n'
        '    def __init__(self, error=None, call=1):\n'
        '        super().__init__(3, 2, 3)\n'
        '        self.error, self.left = error, call\n'
        '    def forward(self, x):\n'
        '        self.left -= 1\n'
        '        if self.error and self.left == 0:\n'
        '            raise self.error("no such size")\n'
        '        return {"logits": super().forward(x).mean((2, 3))}\n'
        'def good(): return Net()\n'
        'def at_once(): return Net(AssertionError)\n'
        'def late(): return Net(KeyError, call=4)\n'
        'def number(): return 3\n'
    )
    names = [f'{tmp_path}/nets.py:{name}' for name in ('at_once', 'number', 'late', 'good')]
    path = tmp_path / 'rows.csv'
    out = call('benchmark', *names, *QUICK, '--rounds', 3, '--csv', path)
    rows = {line.split(' | ')[0].rpartition(':')[2]: line for line in out.splitlines()}
    assert 'AssertionError: no such size' in rows['at_once']
    assert 'no torch.nn.Module was built, but 3' in rows['number']
    assert "KeyError: 'no such size'" in rows['late']
    assert 'images/s' not in rows['good'] and ' ms' in rows['good']
    with path.open() as stream:
        assert [row['rounds'] for row in csv.DictReader(stream)] == ['0', '0', '0', '3']


def test_configs_of_one_name_are_measured_both(call, tmp_path):
    paths = [tmp_path / folder / 'net.py' for folder in 'ab']
    for path in paths:
        path.parent.mkdir()
        path.write_text(f'_base_ = {str(SMALL)!r}\n')
    out = call('benchmark', *paths, *QUICK)
    assert all(f'| {path} |' in out for path in paths)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (
            'model.backbone.type=UniRepLKNt',
            'the config names UniRepLKNt, which is no registered model. Did you mean UniRepLKNet?\n'
            'One of your own is registered by its module: name that in custom_imports.',
        ),
        (
            'model.backbone.drop_path_rat=0.1',
            'UniRepLKNet takes no argument drop_path_rat, which the config gives it. Did you mean '
            'drop_path_rate?',
        ),
    ],
)
def test_misspelt_option(call, option, message):
    error = call('benchmark', SMALL, *QUICK, '--cfg-options', option, status=1)
    assert error.endswith(f'error: {message}\n')


@pytest.mark.parametrize('by', [signal.SIGINT, signal.SIGTERM], ids=lambda by: by.name)
def test_an_interruption_reports_what_there_is(by, call, monkeypatch, tmp_path):
    real, calls = benchmark.timed_call, []

    def interrupted(function, device):
        calls.append(function)
        if len(calls) == 3:
            os.kill(os.getpid(), by)
        return real(function, device)

    monkeypatch.setattr(benchmark, 'timed_call', interrupted)
    path = tmp_path / 'times.json'
    page = tmp_path / 'page.md'
    monkeypatch.setattr(machine, 'busy_cores', lambda: 0.0)
    options = ('--json', path, '--docs', page, '--section', 'x')
    error = call('benchmark', SMALL, *QUICK, *options, status=130)
    assert 'Interrupted' in error and 'page.md stays as it is' in error and not page.exists()
    assert [len(one['seconds']) for one in json.loads(path.read_text())['measurements']] == [1]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['unireplknet_tt'], 'Did you mean unireplknet_t'),
        (['configs/cls/unireplknet_z.py'], 'configs/cls/unireplknet_z.py does not exist'),
        (['unireplknet_a', '--device', 'cuda'], 'torch sees none'),
        (['unireplknet_a', '--device', 'cpu', '--csv', '.'], '--csv: . is a folder'),
        (['unireplknet_a', '--device', 'cpu', '--picture', 'x.foo'], 'x.foo: its name has to end'),
    ],
)
def test_what_a_user_can_mend(call, monkeypatch, arguments, message):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert message in call('benchmark', *arguments, status=1)


def test_docs_need_a_quiet_machine(call, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, 'busy_cores', lambda: 1.7)
    page = tmp_path / 'page.md'
    error = call('benchmark', '--table5', '--docs', page, '--device', 'cpu', status=1)
    assert '1.7 cores of this machine are busy' in error and not page.exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'name a MODEL, or one of --table1'),
        (['unireplknet_a', '--table5'], '--table5 takes no MODEL'),
        (['--table5', '--batch-size', '1', '2'], '--table5 takes one --batch-size'),
        (['unireplknet_a', '--docs', 'x.md'], '--docs needs --section NAME'),
        (['--settings', '--layout', 'better'], '--settings does not take --layout'),
        (['--settings', 'unireplknet_a', 'unireplknet_t'], '--settings takes one MODEL'),
        (['--table1', '--csv', 'x.csv'], '--table1 does not take --csv'),
        (['--table5', '--mode', 'step'], '--table5 does not take --mode'),
        (['--table18', '--dtype', 'fp32', 'bf16'], 'one --threads and one --dtype'),
        (['--table18', '--cfg-options', 'a=1'], '--table18 does not take --cfg-options'),
        (['unireplknet_a', '--size', '32x'], '32x is not of the form 224 or 480x640'),
        (['unireplknet_a', '--batch-size', '0'], '0 is not positive'),
        (['unireplknet_a', '--warm-up', '-3'], '-3 is negative'),
        (['unireplknet_a', '--csv', 'x', '--json', './x'], '--csv and --json name the same file'),
    ],
)
def test_arguments_that_do_not_fit(call, arguments, message):
    assert message in call('benchmark', *arguments, status=2)
