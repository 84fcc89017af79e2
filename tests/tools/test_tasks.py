"""Each task end to end: two processes train, the checkpoint is folded, tested in every form, drawn.

The weights that are tested are not those of the two iterations of training: a backbone far from its
initialisation, for which a wrong folding shows, and a classifier that decides.
"""

import json
import subprocess

import predictions
import pytest
import torch
from helpers import randomise
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image
from tool_runs import CONFIGS, ROOT, TOOLS, environment, read_losses, read_scores, run, run_forked

TASKS = dict(
    cls=predictions.Classification, det=predictions.Detection, seg=predictions.Segmentation
)
AVERAGED = "custom_hooks = [dict(type='EMAHook')]\n"


def only(task):
    """Run a test for one task: what it is about does not depend on the task."""
    return pytest.mark.parametrize('task', [task], indirect=True)


@pytest.fixture(scope='module')
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
    """Config, work dir and log of a training by two processes on CPU; detection in bfloat16, averaged."""
    config = workplace / 'my configs' / f'{task}.py'
    text = f'_base_ = {str(CONFIGS / f"{task}_small.py")!r}\n'
    config.write_text(text + (AVERAGED if task == 'det' else ''))
    work_dir = workplace / f'{task} work'
    options = ('--demo-data', '--work-dir', work_dir, *(['--amp'] if task == 'det' else []))
    if task == 'cls':
        log = run('dist_train.sh', config, 2, *options, cwd=workplace)
    else:  # the script does not depend on the task
        log = run_forked('train.py', config, *options, cwd=workplace, ranks=2)
    return config, work_dir, log


@pytest.fixture(scope='module')
def decided(task, trained):
    """The checkpoint of the training with other weights in it."""
    config, work_dir, _ = trained
    checkpoint = torch.load((work_dir / 'last_checkpoint').read_text(), weights_only=False)
    weights = checkpoint['state_dict']
    backbone = randomise(MODELS.build(Config.fromfile(config).model.backbone))
    weights.update({f'backbone.{name}': value for name, value in backbone.state_dict().items()})
    for name, weight in weights.items():
        if name.endswith(TASKS[task].classifier):
            weight.mul_(50)
        if name.endswith('conv_logits.bias'):
            weight.fill_(1)  # so that no mask is empty
    path = work_dir / 'decided.pth'
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def test(task, trained, workplace, call, monkeypatch):
    """Runs tools/test.py, in this process; returns its predictions and its scores."""
    config, work_dir, _ = trained
    monkeypatch.chdir(workplace)

    def test(checkpoint, *options, annotations=()):
        out = work_dir / 'predictions.pkl'
        settings = ['--cfg-options', *annotations] if annotations else []
        options = (*options, '--demo-data', '--work-dir', work_dir, '--out', out)
        call('test', config, checkpoint, *options, *settings)
        return predictions.read(out), read_scores(work_dir)

    return test


def data_root(workplace, task):
    (folder,) = (workplace / 'data' / 'demo').glob(
        dict(cls='imagenet*', det='coco*', seg='ade20k*')[task]
    )
    return folder


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
    content = torch.load(checkpoint, weights_only=False)
    assert content['meta']['seed'] == 0
    assert ('ema_state_dict' in content) == (task == 'det')
    assert not list(work_dir.glob('.*'))
    assert (workplace / 'data' / 'demo').is_dir()
    assert ' - ERROR - ' not in log
    _, _, end = log.rpartition('The demo run is finished.\n')
    assert end.startswith(f'Shown: {task}.py works on this machine: ')
    assert 'no error here' not in end  # there were scores
    assert f'\nOutput: {work_dir} (log: ' in end
    assert '\nThen run the same command without --demo-data.\n' in end


def test_every_form_predicts_the_same(task, trained, decided, workplace, call, test):
    config, work_dir, _ = trained
    expected, _ = test(decided)
    annotations = TASKS[task].annotate(expected, data_root(workplace, task))

    deploy = work_dir / 'deploy.pth'
    output = call('reparameterize', config, decided, deploy)
    assert f'Wrote {deploy}: ' in output
    folded = torch.load(deploy, weights_only=True)
    assert folded['meta']['deploy'] is True
    assert folded['meta']['dataset_meta']
    assert not any('running_var' in key for key in folded['state_dict'] if 'backbone' in key)

    pictures = work_dir / 'pictures'
    forms = ((decided, '--deploy'), (deploy, '--show-dir', pictures), (deploy, '--deploy'))
    for checkpoint, *options in forms:
        predicted, scored = test(checkpoint, *options, annotations=annotations)
        TASKS[task].assert_same(predicted, expected)
        for name, whole in TASKS[task].score_names.items():
            assert scored[name] == pytest.approx(whole, rel=0.005)
    assert len([*pictures.rglob('*.jpg'), *pictures.rglob('*.png')]) >= 2
    assert not list(work_dir.glob('.*'))

    # The annotations are met by these weights and by no others.
    predicted, scored = test((work_dir / 'last_checkpoint').read_text(), annotations=annotations)
    assert any(scored[name] < 0.9 * whole for name, whole in TASKS[task].score_names.items())
    with pytest.raises(AssertionError):
        TASKS[task].assert_same(predicted, expected)


def test_predictions_of_files_are_those_of_a_test(task, trained, decided, workplace, call, test):
    config, work_dir, _ = trained
    matrix = work_dir / 'matrix.png'
    options = ('--confusion-matrix', matrix) if task == 'cls' else ()
    expected, _ = test(decided, *options)  # in the order of the paths, as the files here
    assert matrix.is_file() == (task == 'cls')
    folded, out = work_dir / 'folded.pth', workplace / f'{task} predictions'
    call('reparameterize', config, decided, folded)
    classes = torch.load(decided, weights_only=False)['meta']['dataset_meta']['classes']
    files = [sample['img_path'] for sample in expected]
    options = ('--score-thr', predictions.DETECTION_SCORE) if task == 'det' else ()
    for checkpoint, *more in ((decided,), (decided, '--deploy'), (folded,)):
        output = call('predict', config, checkpoint, *files, '--out', out, *options, *more)
        assert [line.partition(': ')[0] for line in output.splitlines()] == files
        document = json.loads((out / 'predictions.json').read_text())
        assert document['complete'] and not document['failures']
        # 150 names are not of the 11 classes of this head.
        assert document['classes'] == (None if task == 'seg' else list(classes))
        for record, sample in zip(document['predictions'], expected, strict=True):
            assert record['input'] == sample['img_path']
            height, width = sample['ori_shape']
            with Image.open(out / record['picture']) as picture:
                assert picture.width / picture.height == pytest.approx(width / height, rel=0.02)
            if checkpoint == decided and not more:  # else they differ by roundings
                TASKS[task].assert_recorded(record, sample)
    assert len(list((out / 'pictures').glob('*.jpg'))) == len(files)


@only('cls')
def test_a_training_does_not_start_from_deploy_weights(task, trained, decided, workplace, call):
    config, work_dir, _ = trained
    deploy = work_dir / 'deploy.pth'
    if not deploy.exists():
        call('reparameterize', config, decided, deploy)
    before = deploy.read_bytes()

    stderr = call('reparameterize', config, deploy, work_dir / 'again.pth', status=1)
    assert stderr.endswith(f'error: {deploy} is in the deploy structure already.\n')
    stderr = call('reparameterize', config, deploy, deploy, status=1)
    assert stderr == 'error: OUT is CHECKPOINT: choose another file, this one would be lost.\n'
    assert deploy.read_bytes() == before
    assert not (work_dir / 'again.pth').exists()

    options = ('--cfg-options', f'load_from={deploy}', '--demo-data', '--work-dir', workplace / 'x')
    stderr = call('train', config, *options, status=1)
    assert stderr.rpartition('error: ')[2] == (
        f'checkpoint {deploy}: the weights are re-parameterized (deploy form) and the backbone is in its '
        'training form: build it with deploy=True, or load the weights from training\n'
    )


@only('cls')
def test_checkpoint_of_another_task(task, decided, workplace, call):
    other, out = CONFIGS / 'seg_small.py', workplace / 'out.pth'
    stderr = call('reparameterize', other, decided, out, status=1)
    assert stderr.startswith(f'error: {decided} was not trained with {other}.\n')
    assert not out.exists()


@only('seg')
def test_two_processes_test_with_augmentation(task, trained, decided, workplace, call, test):
    """From a re-parameterized file, whose form the model takes within both of its wrappers."""
    config, work_dir, _ = trained
    expected, _ = test(decided, '--tta')
    annotations = TASKS[task].annotate(expected, data_root(workplace, task))
    deploy, out = work_dir / 'augmented.pth', workplace / 'predictions of two.pkl'
    call('reparameterize', config, decided, deploy)
    options = ('--demo-data', '--work-dir', work_dir, '--tta', '--out', out)
    options = (*options, '--cfg-options', *annotations)
    log = run('dist_test.sh', config, deploy, 2, *options, cwd=workplace)
    assert 'SegTTAModel' in log
    assert f'Predictions are in {out}.' in log
    assert '.partial' not in log
    TASKS[task].assert_same(predictions.read(out), expected)
    for name, whole in TASKS[task].score_names.items():
        assert read_scores(work_dir)[name] == pytest.approx(whole, rel=0.005)


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
