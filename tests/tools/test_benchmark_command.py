"""tools/benchmark.py on a tiny model: outputs in every format, what is refused, Ctrl-C."""

import csv
import json

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


def test_control_c_reports_what_there_is(call, monkeypatch, tmp_path):
    real, calls = benchmark.timed_call, []

    def interrupted(function, device):
        calls.append(function)
        if len(calls) == 3:
            raise KeyboardInterrupt
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
    ],
)
def test_arguments_that_do_not_fit(call, arguments, message):
    assert message in call('benchmark', *arguments, status=2)
