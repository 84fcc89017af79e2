"""What a user does wrong ends a tool with status 1 and a few lines that name the value and the way out."""

import os
import subprocess

import pytest
import torch
from mmengine.config import Config
from tool_runs import CONFIGS, ROOT, TOOLS, command, environment, run

from unireplknet_mm import launch
from unireplknet_mm.launch import arguments

DET = ROOT / 'configs' / 'det' / 'cascade_unireplknet_t_3x.py'
SEG = ROOT / 'configs' / 'seg' / 'upernet_unireplknet_t_160k.py'
CLS = ROOT / 'configs' / 'cls' / 'unireplknet_a_in1k.py'

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has a GPU')


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def nothing_left(empty_folder):
    before = sorted(empty_folder.rglob('*'))
    yield
    assert sorted(empty_folder.rglob('*')) == before


def error_lines(stderr: str) -> str:
    """The message: the last lines, from 'error:' on; warnings of other packages may precede it."""
    assert 'Traceback' not in stderr
    _, _, message = stderr.rpartition('error: ')
    assert 1 <= len(message.strip().splitlines()) <= 4, message
    return message


@pytest.mark.parametrize('tool', ['train', 'test', 'reparameterize'])
def test_config_does_not_exist(call, tool, nothing_left):
    more = dict(train=[], test=['x.pth'], reparameterize=['x.pth', 'y.pth'])[tool]
    path = ROOT / 'configs' / 'det' / 'cascade_unireplknet_s_4x.py'
    message = error_lines(call(tool, path, *more, status=1))
    assert f'{path} does not exist' in message
    assert 'cascade_unireplknet_s_3x.py' in message


def test_config_unlike_any(nothing_left):
    with pytest.raises(launch.UserError, match=r'To see those that do: ls .*configs') as error:
        launch.load_config(ROOT / 'configs' / 'zzzzzzzzzzzzz')
    assert 'Did you mean' not in str(error.value)


def test_exit_status_and_stderr_of_the_process(tmp_path):
    """The other tests call main() in their own process."""
    result = subprocess.run(
        command('train.py', DET), cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr + result.stdout
    assert f'{tmp_path}/data/coco, which train_dataloader reads' in error_lines(result.stderr)
    assert not list(tmp_path.iterdir())


def test_distributed_processes_report_an_error_once(tmp_path):
    stderr = run('dist_train.sh', DET, 2, cwd=tmp_path, status=1)
    assert stderr.count('error: ') == 1
    assert 'Traceback' not in stderr
    assert '--demo-data' in stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('config', 'path', 'source'),
    [
        (DET, 'data/coco/annotations/instances_train2017.json', 'cocodataset.org'),
        (SEG, 'data/ade/ADEChallengeData2016/images/training', 'ADEChallengeData2016.zip'),
        (CLS, 'data/imagenet/train', 'image-net.org'),
    ],
    ids=['coco', 'ade20k', 'imagenet'],
)
def test_missing_data(call, config, path, source, empty_folder):
    message = error_lines(call('train', config, status=1))
    assert str(empty_folder / path.split('/')[0] / path.split('/')[1]) in message
    assert source in message
    assert '--demo-data' in message
    assert not list(empty_folder.iterdir())

    # With the root in place, the first file or folder that is missing in it is named.
    (empty_folder / Config.fromfile(config).data_root).mkdir(parents=True)
    message = error_lines(call('train', config, status=1))
    assert f'{empty_folder / path}, which train_dataloader reads, does not exist' in message
    assert not (empty_folder / 'work_dirs').exists()


def test_missing_data_of_other_kinds(empty_folder):
    dataset = dict(type='VOCDataset', data_root='voc', ann_file='train.txt')
    cfg = Config(dict(val_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset))))
    with pytest.raises(launch.UserError, match=f'{empty_folder}/voc, which val_dataloader reads'):
        launch.check_data(cfg, 'train', 'val')
    (empty_folder / 'voc').mkdir()
    with pytest.raises(launch.UserError, match=r'voc/train\.txt, which val_dataloader reads'):
        launch.check_data(cfg, 'val')
    (empty_folder / 'voc' / 'train.txt').touch()
    launch.check_data(cfg, 'val')

    cfg.val_evaluator = [dict(type='CocoMetric', ann_file='voc/instances.json')]
    with pytest.raises(launch.UserError, match=r'voc/instances.json, the ann_file of val_eval'):
        launch.check_data(cfg, 'val')
    remote = dict(type='CocoDataset', data_root='s3://bucket/coco', ann_file='train.json')
    launch.check_data(Config(dict(test_dataloader=dict(dataset=remote))), 'test')


def test_missing_pretrained_weights(empty_folder):
    name = 'unireplknet_t_in1k_224_acc83.21.pth'
    init = dict(type='Pretrained', checkpoint=f'weights/{name}')
    cfg = Config(dict(model=dict(backbone=dict(type='UniRepLKNet', init_cfg=init))))
    with pytest.raises(launch.UserError) as error:
        launch.check_pretrained(cfg)
    assert str(empty_folder / 'weights' / name) in str(error.value)
    assert f'/resolve/main/{name}' in str(error.value)

    cfg.resume = True  # the weights come from the checkpoint
    launch.check_pretrained(cfg)
    assert cfg.model.backbone.init_cfg is None

    cfg = Config(dict(model=dict(), load_from='detector.pth'))
    with pytest.raises(launch.UserError, match=r'detector\.pth does not exist'):
        launch.check_pretrained(cfg)


@needs_no_gpu
def test_no_gpu(call, nothing_left):
    message = error_lines(call('train', DET, '--device', 'cuda', status=1))
    assert 'asks for a GPU' in message
    assert '--device cpu' in message


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    with pytest.raises(launch.UserError, match=r'2 processes .* 1 GPU'):
        launch.prepare_device(Config(), 'pytorch', 'auto')


def test_launcher_without_torchrun(call, monkeypatch, nothing_left):
    monkeypatch.delenv('RANK', raising=False)
    message = error_lines(call('train', DET, '--launcher', 'pytorch', status=1))
    assert 'dist_train.sh' in message


@needs_no_gpu
def test_slurm_without_gpu(call, nothing_left):
    message = error_lines(call('train', DET, '--launcher', 'slurm', status=1))
    assert '--launcher slurm needs GPUs' in message


def test_unwritable_work_dir(call, empty_folder):
    (empty_folder / 'file').touch()
    arguments = (CONFIGS / 'cls_small.py', '--demo-data', '--work-dir', 'file/work')
    message = error_lines(call('train', *arguments, status=1))
    assert f'cannot write to {empty_folder / "file" / "work"}: Not a directory' in message
    assert '--work-dir' in message
    assert not (empty_folder / 'work_dirs').exists()


def test_read_only_work_dir(empty_folder, monkeypatch):
    if os.access('/proc', os.F_OK):
        with pytest.raises(launch.UserError, match='cannot write to /proc/work'):
            launch.create_work_dir(Config(dict(work_dir='/proc/work')))
    launch.create_work_dir(Config(dict(work_dir='new/work')))
    assert (empty_folder / 'new' / 'work').is_dir()
    assert not list((empty_folder / 'new' / 'work').iterdir())


def test_checkpoint_to_resume_from(call, empty_folder):
    message = error_lines(call('train', DET, '--resume', 'nowhere.pth', status=1))
    assert f'checkpoint {empty_folder / "nowhere.pth"} does not exist' in message

    work_dir = empty_folder / 'work'
    cfg = Config(dict(work_dir=str(work_dir), load_from='pretrained.pth'))
    launch.set_resume(cfg, 'auto')
    assert (cfg.get('resume'), cfg.load_from) == (None, 'pretrained.pth')

    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text('/before/it/moved/iter_2.pth')
    with pytest.raises(launch.UserError, match=r'/before/it/moved/iter_2\.pth does not exist'):
        launch.set_resume(cfg, 'auto')
    (work_dir / 'iter_2.pth').touch()
    launch.set_resume(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (True, str(work_dir / 'iter_2.pth'))


def test_options_that_do_not_fit(call, nothing_left):
    message = error_lines(call('train', DET, '--cfg-options', 'train_cfg', status=1))
    assert "KEY=VALUE, not 'train_cfg'" in message
    options = ('--cfg-options', 'model.backbone.arch.depths=1')
    assert '--cfg-options does not fit' in error_lines(call('train', DET, *options, status=1))


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('arch=q', ["'q'", 'xl']),
        ('norm_cfg.type=NoNorm', None),
    ],
)
def test_backbone_that_cannot_be_built(call, option, words, empty_folder):
    arguments = (CLS, '--demo-data', '--cfg-options', f'model.backbone.{option}')
    if words is None:  # not the suite's error: the traceback stays
        with pytest.raises(KeyError, match='registry'):
            call('train', *arguments)
        return
    message = error_lines(call('train', *arguments, status=1))
    assert all(word in message for word in words)


def test_auto_scale_lr_without_batch_size():
    for cfg in (Config(), Config(dict(auto_scale_lr=dict(enable=False)))):
        with pytest.raises(launch.UserError, match='base_batch_size'):
            launch.enable_auto_scale_lr(cfg)
    cfg = Config.fromfile(DET)
    launch.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)


def test_amp_of_an_unknown_optimizer_wrapper(monkeypatch):
    cfg = Config(dict(optim_wrapper=dict(type='DeepSpeedOptimWrapper')))
    with pytest.raises(launch.UserError, match='DeepSpeedOptimWrapper'):
        launch.enable_amp(cfg)
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=1))))
    monkeypatch.setattr(arguments, 'get_device', lambda: 'cpu')
    with pytest.raises(launch.UserError, match='float16 needs a GPU'):
        launch.enable_amp(cfg, 'float16')


@pytest.mark.parametrize('tool', ['test', 'reparameterize'])
def test_checkpoint_that_cannot_be_read(call, tool, empty_folder):
    more = dict(test=['--demo-data'], reparameterize=['out.pth'])[tool]
    config = CONFIGS / 'cls_small.py'

    message = error_lines(call(tool, config, 'nowhere.pth', *more, status=1))
    assert f'checkpoint {empty_folder / "nowhere.pth"} does not exist' in message

    torch.save(dict(state_dict={'a': torch.zeros(1000)}), 'whole.pth')
    whole = (empty_folder / 'whole.pth').read_bytes()
    (empty_folder / 'truncated.pth').write_bytes(whole[: len(whole) // 2])
    message = error_lines(call(tool, config, 'truncated.pth', *more, status=1))
    assert 'truncated.pth' in message
    assert 'truncated or corrupt' in message

    torch.save(dict(state_dict={'layer1.0.conv1.weight': torch.zeros(1)}), 'foreign.pth')
    message = error_lines(call(tool, config, 'foreign.pth', *more, status=1))
    assert 'ResNet' in message
    assert not (empty_folder / 'out.pth').exists()


@pytest.mark.parametrize(
    ('tool', 'option'),
    [('test', ['--out', 'file/x.pkl']), ('test', ['--show-dir', 'file/x']), ('reparameterize', [])],
)
def test_unwritable_output(call, tool, option, empty_folder):
    """Seen before the time for testing is spent."""
    (empty_folder / 'file').touch()
    (empty_folder / 'x.pth').touch()
    option = [*option, '--demo-data'] if option else ['file/x.pth']
    message = error_lines(call(tool, CONFIGS / 'cls_small.py', 'x.pth', *option, status=1))
    assert f'cannot write to {empty_folder / "file"}' in message
    assert option[0] in message or 'OUT' in message


def test_output_that_is_a_folder(call, empty_folder, nothing_left):
    config = CONFIGS / 'cls_small.py'
    checkpoint = config  # any file: it is not read
    message = error_lines(call('reparameterize', config, checkpoint, empty_folder, status=1))
    assert f'OUT, {empty_folder}, is a folder' in message


def test_no_test_time_augmentation(call, empty_folder):
    (empty_folder / 'x.pth').touch()
    options = ('x.pth', '--demo-data', '--tta')
    message = error_lines(call('test', CONFIGS / 'det_small.py', *options, status=1))
    assert 'the config defines no tta_model and no tta_pipeline' in message


def test_out_is_no_pickle_file(call, nothing_left):
    message = error_lines(call('test', DET, 'x.pth', '--out', 'x.json', status=2))
    assert '--out takes a file name that ends with .pkl, not x.json' in message


def test_scripts_without_arguments():
    for script in sorted(TOOLS.glob('*_t*.sh')):
        if script.name.startswith(('dist_', 'slurm_')):
            result = subprocess.run(['bash', script, 'x'], capture_output=True, text=True)
            assert result.returncode == 2
            assert result.stderr.startswith('usage: ')


@pytest.mark.parametrize(
    ('gpus', 'variables', 'words'),
    [
        ('two', {}, "not 'two'"),
        ('0', {}, "not '0'"),
        ('1', dict(NNODES='2'), 'set PORT'),
    ],
)
def test_scripts_with_wrong_numbers(tmp_path, gpus, variables, words):
    assert words in run('dist_train.sh', DET, gpus, cwd=tmp_path, status=2, **variables)


def test_errors_that_are_not_the_users_keep_their_traceback():
    def fail_in_a_library():
        return launch.load_config(DET).merge_from_dict(int('x'))

    with pytest.raises(ValueError, match='invalid literal'):
        launch.exit_on_user_error(fail_in_a_library)()
