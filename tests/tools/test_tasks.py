"""Each task end to end: two processes train, the checkpoint is folded, tested in both forms, drawn."""

import json
import pickle
import subprocess

import pytest
import torch
from tool_runs import CONFIGS, ROOT, TOOLS, environment, read_losses, run

# The metric to compare. After two iterations the AP of a detector is 0, and says nothing.
TASKS = dict(cls='accuracy/top1', det=None, seg='mIoU')


def only(task):
    """Run a test for one task: what it is about does not depend on the task."""
    return pytest.mark.parametrize('task', [task], indirect=True)


@pytest.fixture(scope='session')
def workplace(tmp_path_factory):
    """A folder with a blank in its name; demo data that one test writes serve the next."""
    folder = tmp_path_factory.mktemp('end to end')
    (folder / 'my configs').mkdir()
    return folder


@pytest.fixture(scope='module', params=TASKS)
def task(request):
    return request.param


@pytest.fixture(scope='module')
def trained(task, workplace):
    """Config, work dir and log of a training by two processes on CPU; detection in bfloat16."""
    config = workplace / 'my configs' / f'{task}.py'
    config.write_text(f'_base_ = {str(CONFIGS / f"{task}_small.py")!r}\n')
    work_dir = workplace / f'{task} work'
    options = ('--demo-data', '--work-dir', work_dir, *(['--amp'] if task == 'det' else []))
    log = run('dist_train.sh', config, 2, *options, cwd=workplace)
    return config, work_dir, log


@pytest.fixture
def results(trained):
    """Reads the metrics that the latest test wrote to the work dir."""

    def read(work_dir):
        files = sorted(work_dir.glob('2*/2*.json'), key=lambda file: file.stat().st_mtime)
        return json.loads(files[-1].read_text().splitlines()[-1])

    return read


def test_training(task, trained, workplace):
    _, work_dir, log = trained
    losses = read_losses(work_dir)[0]
    assert losses
    assert all(loss > 0 for loss in losses.values())
    assert 'GPU number: 2' in log
    assert log.count('SyncBN is replaced by BN: no GPU.') == (0 if task == 'cls' else 1)
    assert ('CpuAmpOptimWrapper' in log) == (task == 'det')
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    assert checkpoint.startswith(str(work_dir))
    assert torch.load(checkpoint, weights_only=False)['meta']['seed'] == 0
    assert not list(work_dir.glob('.*'))
    assert (workplace / 'data' / 'demo').is_dir()
    assert ' - ERROR - ' not in log
    _, _, end = log.rpartition('The demo run is finished.\n')
    assert end.startswith(f'Shown: {task}.py works on this machine: ')
    assert 'no error here' not in end  # there were scores
    assert f'\nOutput: {work_dir} (log: ' in end
    assert '\nThen run the same command without --demo-data.\n' in end


def test_testing_in_both_forms(task, trained, results, workplace, call, monkeypatch):
    config, work_dir, _ = trained
    monkeypatch.chdir(workplace)
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    deploy = work_dir / 'deploy.pth'
    options = ('--demo-data', '--work-dir', work_dir)

    output = call('reparameterize', config, checkpoint, deploy)
    assert f'Wrote {deploy}' in output
    folded = torch.load(deploy, weights_only=True)
    assert folded['meta']['deploy'] is True
    assert folded['meta']['dataset_meta']
    assert not any('running_var' in key for key in folded['state_dict'] if 'backbone' in key)
    assert not list(work_dir.glob('.*'))

    call('test', config, checkpoint, *options)
    expected = results(work_dir)
    pictures, predictions = work_dir / 'pictures', work_dir / 'predictions.pkl'
    more = ('--out', predictions, '--show-dir', pictures)
    call('test', config, deploy, *options, '--deploy', *more)
    score = TASKS[task]
    if score:
        assert results(work_dir)[score] == pytest.approx(expected[score], abs=0.5)
    with predictions.open('rb') as file:
        assert len(pickle.load(file)) == 2
    assert len([*pictures.rglob('*.jpg'), *pictures.rglob('*.png')]) >= 2
    assert not list(work_dir.glob('.*'))


@only('cls')
def test_structures_do_not_mix(task, trained, workplace, call, monkeypatch):
    config, work_dir, _ = trained
    monkeypatch.chdir(workplace)
    deploy = work_dir / 'deploy.pth'
    if not deploy.exists():
        call('reparameterize', config, (work_dir / 'last_checkpoint').read_text(), deploy)
    before = deploy.read_bytes()

    stderr = call('test', config, deploy, '--demo-data', '--work-dir', work_dir, status=1)
    assert 're-parameterized' in stderr
    assert '--deploy' in stderr
    stderr = call('reparameterize', config, deploy, work_dir / 'again.pth', status=1)
    assert f'{deploy} is in the deploy structure already' in stderr
    stderr = call('reparameterize', config, deploy, deploy, status=1)
    assert 'OUT is CHECKPOINT' in stderr
    assert deploy.read_bytes() == before
    assert not (work_dir / 'again.pth').exists()

    options = ('--cfg-options', f'load_from={deploy}', '--demo-data', '--work-dir', 'other')
    stderr = call('train', config, *options, status=1)
    assert 're-parameterized' in stderr


@only('cls')
def test_checkpoint_of_another_task(task, trained, workplace, call, monkeypatch):
    _, work_dir, _ = trained
    monkeypatch.chdir(workplace)
    other = CONFIGS / 'seg_small.py'
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    stderr = call('reparameterize', other, checkpoint, 'out.pth', status=1)
    assert f'was not trained with {other}' in stderr
    assert not (workplace / 'out.pth').exists()


@only('seg')
def test_two_processes_test_with_augmentation(task, trained, results, workplace):
    config, work_dir, _ = trained
    out = workplace / 'predictions of two.pkl'
    options = ('--demo-data', '--work-dir', work_dir, '--deploy', '--tta', '--out', out)
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    log = run('dist_test.sh', config, checkpoint, 2, *options, cwd=workplace)
    assert 'Re-parameterized 1 module(s)' in log
    assert 'SegTTAModel' in log
    assert results(work_dir)['mIoU'] >= 0
    with out.open('rb') as file:
        assert len(pickle.load(file)) == 2


@pytest.mark.parametrize(
    ('script', 'arguments', 'expected'),
    [
        (
            'slurm_train.sh',
            ['part', 'my job', 'a config.py', 'a dir', '--amp'],
            ['train.py', 'a config.py', '--work-dir', 'a dir', '--launcher', 'slurm', '--amp'],
        ),
        (
            'slurm_train.sh',
            ['part', 'my job', 'a config.py', '--amp'],
            ['train.py', 'a config.py', '--launcher', 'slurm', '--amp'],
        ),
        (
            'slurm_test.sh',
            ['part', 'my job', 'a config.py', 'a.pth', '--tta'],
            ['test.py', 'a config.py', 'a.pth', '--launcher', 'slurm', '--tta'],
        ),
    ],
)
def test_slurm_scripts(tmp_path, script, arguments, expected):
    """With an `srun` that prints its arguments, one a line."""
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    variables = environment(GPUS='4', SRUN_ARGS='--qos=high --time=1:00')
    result = subprocess.run(
        ['bash', TOOLS / script, *arguments],
        env={**variables, 'PATH': f'{tmp_path}:{variables["PATH"]}'},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = result.stdout.splitlines()
    assert lines[:3] == ['-p', 'part', '--job-name=my job']
    assert {'--gres=gpu:4', '--ntasks=4', '--qos=high', '--time=1:00'} <= set(lines)
    assert lines[-len(expected) :] == [str(ROOT / 'tools' / expected[0]), *expected[1:]]
