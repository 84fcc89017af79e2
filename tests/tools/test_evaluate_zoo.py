"""tools/evaluate_zoo.py on small models: the table, going on where it was, what is left out."""

import json

import pytest
import torch
from helpers import randomise, write_small_zoo
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner

from unireplknet_mm import zoo


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A zoo of three small models; the current folder is empty."""
    folder = tmp_path / 'home'
    folder.mkdir()
    write_small_zoo(folder, tmp_path / 'weights')
    monkeypatch.setattr(zoo, 'home', lambda: folder)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def tested(monkeypatch):
    """The configs that were tested, in order."""
    names = []
    test = Runner.test

    def note(runner):
        names.append(runner.cfg.filename.rpartition('/')[2])
        return test(runner)

    monkeypatch.setattr(Runner, 'test', note)
    return names


def rows(output: str) -> dict[str, list[str]]:
    """The cells behind the first of each line of the table."""
    table = output[output.rindex('| model |') :]  # logs of tests have tables, too
    lines = [line for line in table.splitlines() if line.startswith('|')]
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return {first: rest for first, *rest in cells}


def test_demo_data_show_every_task_and_the_table_is_written(call, home, tested, tmp_path):
    output = call('evaluate_zoo', '--demo-data', '--device', 'cpu', '--out', 'tables/zoo.md')
    assert tested == ['cls_small.py', 'det_small.py', 'seg_small.py']
    found = rows(output)
    assert 'random weights: the scores say nothing' in output
    weights, measured, paper, parameters, flops, speed = found['cls_small']
    assert (weights, paper) == ('random', 'Top 1 Accuracy 12.5')
    assert measured.startswith('Top 1 Accuracy ') and float(speed) > 0
    assert parameters.endswith(' M (2.0 M)') and flops.endswith(' G (0.3 G)')
    assert found['seg_small'][1].startswith('mIoU ')
    assert found['det_small'][2] == 'box AP 23.4, mask AP 21.0'
    text = (tmp_path / 'tables' / 'zoo.md').read_text()
    assert rows(text) == found and 'torch' in text.splitlines()[0]


def test_it_goes_on_where_it_was_interrupted(call, home, tested, monkeypatch):
    command = (
        'evaluate_zoo',
        '--demo-data',
        '--device',
        'cpu',
        '--no-speed',
        '--task',
        'cls',
        'seg',
    )
    test = Runner.test

    def interrupt_the_second(runner):
        if 'seg' in runner.cfg.filename:
            raise KeyboardInterrupt
        return test(runner)

    with monkeypatch.context() as patch:
        patch.setattr(Runner, 'test', interrupt_the_second)
        assert 'the same command goes on from here' in call(*command, status=130)
    assert tested == ['cls_small.py']
    output = call(*command)
    found = rows(output)
    assert tested == ['cls_small.py', 'seg_small.py'], 'the first was kept'
    assert 'from work_dirs/zoo_demo/rows.json: scores of cls_small.\n--again' in output
    assert found['cls_small'][1].startswith('Top 1') and found['model'][-1] == 'FLOPs'
    call(*command, '--again', '--models', 'seg_small')
    assert tested[2:] == ['seg_small.py']
    call(*command[:-3], '--cfg-options', 'randomness.seed=3', '--task', 'seg')
    assert tested[3:] == ['seg_small.py'], 'other settings are measured anew'
    assert 'scores of seg_small.' in call(*command[:-2], 'seg'), 'and do not take the place'
    assert len(tested) == 4


def test_another_batch_size_takes_images_per_second_alone(call, home, tested, tmp_path):
    command = ('evaluate_zoo', '--demo-data', '--device', 'cpu', '--task', 'cls')
    first = rows(call(*command, '--no-speed'))
    for size, taken in (('1', 'scores of cls_small.\n--'), ('2', 'scores of cls_small.\n--')):
        output = call(*command, '--batch-size', size)
        assert f'rows.json: {taken}' in output and 'images/s of' not in output
        found = rows(output)
        assert found['cls_small'][:-1] == first['cls_small'] and float(found['cls_small'][-1]) > 0
    assert found['model'][-1] == 'images/s (batch 2)'
    output = call(*command)
    assert 'rows.json: images/s of cls_small.\n' in output
    (row,) = json.loads((tmp_path / 'work_dirs' / 'zoo_demo' / 'rows.json').read_text())
    assert row['speeds'].keys() == {'1', '2'} and tested == ['cls_small.py']
    config = home / 'configs' / 'cls' / 'cls_small.py'
    config.write_text(config.read_text() + 'model = dict(head=dict(topk=(1, 2)))\n')
    call(*command, '--no-speed')
    assert len(tested) == 2, 'it is another config'


def test_a_table_has_no_rows_of_other_settings(call, home, tested, monkeypatch):
    command = ('evaluate_zoo', '--demo-data', '--device', 'cpu', '--no-speed', '--task', 'cls')
    call(*command)

    def interrupt(runner):
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, 'test', interrupt)
    options = ('--out', 'zoo.md', '--cfg-options', 'randomness.seed=3')
    assert 'the same command goes on from here' in call(*command, *options, status=130)
    found = rows((home.parent / 'zoo.md').read_text())
    assert found['cls_small'][1] == 'not reached'


def test_published_weights_on_data_that_are_there(call, home, tested, tmp_path):
    """A model trained on nothing is tested on demo data that a config names as its own."""
    call('evaluate_zoo', '--demo-data', '--device', 'cpu', '--no-speed', '--task', 'cls')
    (folder,) = (tmp_path / 'data' / 'demo').iterdir()
    config = home / 'configs' / 'cls' / 'cls_small.py'
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = randomise(MODELS.build(cfg.model))
    (tmp_path / 'mine').mkdir()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'mine' / 'cls_small.pth')
    options = ('--cfg-options', f'test_dataloader.dataset.data_root={folder}')
    command = ('evaluate_zoo', '--device', 'cpu', '--no-speed', '--task', 'cls', *options)
    error = call(*command, status=1)
    assert 'weights/cls_small.pth does not exist' in error
    found = rows(call(*command, '--checkpoints', 'mine'))
    assert found['cls_small'][0] == 'mine/cls_small.pth'
    assert found['cls_small'][1].startswith('Top 1 Accuracy ')
    record = json.loads((tmp_path / 'work_dirs' / 'zoo' / 'rows.json').read_text())
    assert record[0]['left_out'] is None and record[0]['parameters'] < 1e6


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['--models', 'cls_smal'],
            'there is no cls_smal in model-index.yml.\nDid you mean cls_small or',
        ),
        (['--models', 'cls_small', '--task', 'det'], 'leave no model'),
    ],
)
def test_what_there_is_not(call, home, arguments, message):
    assert message in call('evaluate_zoo', *arguments, status=1)


def test_a_record_that_is_none(call, home, tmp_path):
    (tmp_path / 'rows.json').write_text('{"a": 1}')
    error = call('evaluate_zoo', '--demo-data', '--work-dir', '.', status=1)
    assert 'rows.json does not hold the rows of an evaluation' in error
