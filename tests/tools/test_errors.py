"""What a user does wrong ends a tool with status 1 and a few lines that name the value and the way out.

The messages are compared whole: read one after the other, they show what a user gets to see.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import two_encoders  # noqa: F401  (registers its model)
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import FlexibleRunner
from tool_runs import CONFIGS, ROOT, TOOLS, command, environment, run
from torch import nn

from unireplknet_mm import launch
from unireplknet_mm.launch import arguments
from unireplknet_mm.weights import PUBLISHED
from unireplknet_mm.weights.reading import load_checkpoint

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


def error_of(stderr: str) -> str:
    """The message: what follows 'error: '; warnings of other packages may precede it."""
    assert 'Traceback' not in stderr
    before, _, message = stderr.rpartition('error: ')
    assert not before or before.endswith('\n')
    assert message.endswith('\n') and not message.endswith('\n\n')
    assert 1 <= len(message.splitlines()) <= 4, message
    return message[:-1]


def shorter(path: Path) -> str:
    """As suggestions name a file or folder: from here, where that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


@pytest.fixture
def raises():
    """Checks that a block raises a user's error with this whole message."""

    @contextmanager
    def raises(message: str) -> Iterator[None]:
        with pytest.raises(launch.UserError) as info:
            yield
        assert str(info.value) == message

    return raises


@pytest.mark.parametrize('tool', ['train', 'test', 'predict', 'reparameterize', 'get_flops'])
def test_config_does_not_exist(call, tool, nothing_left):
    more = dict(test=['x.pth'], predict=['x.pth', '.'], reparameterize=['x.pth', 'y.pth']).get(
        tool, []
    )
    path = ROOT / 'configs' / 'det' / 'cascade_unireplknet_s_4x.py'
    close = [path.with_name(f'cascade_unireplknet_{arch}_3x.py') for arch in ('s', 't', 'p')]
    assert error_of(call(tool, path, *more, status=1)) == (
        f'config {path} does not exist.\n'
        f'Did you mean {" or ".join(shorter(file) for file in close)}?'
    )


def test_config_unlike_any(raises, nothing_left):
    path = ROOT / 'configs' / 'zzzzzzzzzzzzz'
    with raises(f'config {path} does not exist.\nTo see those that do: ls {shorter(path.parent)}'):
        launch.load_config(path)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('model = dict(\n', "SyntaxError: '(' was never closed (<unknown>, line 1)"),
        (
            '_base_ = "nope.py"\n',
            "FileNotFoundError: [Errno 2] No such file or directory: '{folder}/nope.py'",
        ),
        ('model = nothing\n', "NameError: name 'nothing' is not defined"),
        (
            "custom_imports = dict(imports=['nope'])\n",
            "ModuleNotFoundError: No module named 'nope'",
        ),
        (
            '_base_ = "base.py"\nmodel = dict(head=dict(x=1))\n',
            "TypeError: head={{'x': 1}} in child config cannot inherit from base because head is a dict in "
            "the child config but is of type <class 'int'> in base config. You may set `_delete_=True` to "
            'ignore the base config.',
        ),
    ],
)
def test_config_that_cannot_be_read(call, text, reason, empty_folder):
    (empty_folder / 'base.py').write_text('model = dict(head=1)\n')
    (empty_folder / 'own.py').write_text(text)
    assert error_of(call('train', 'own.py', status=1)) == (
        f'config own.py cannot be read: {reason.format(folder=empty_folder)}'
    )


@pytest.mark.parametrize(
    ('tool', 'missing'),
    [
        ('train', 'model, no train_dataloader, no train_cfg, no optim_wrapper'),
        ('test', 'model, no test_dataloader, no test_cfg, no test_evaluator'),
        ('reparameterize', 'model'),
        ('get_flops', 'model'),
    ],
)
def test_config_that_does_not_say_how(call, tool, missing, empty_folder):
    (empty_folder / 'own.py').write_text('x = 1\n')
    more = dict(test=['x.pth'], reparameterize=['x.pth', 'y.pth']).get(tool, [])
    assert error_of(call(tool, empty_folder / 'own.py', *more, status=1)) == (
        f'config {empty_folder}/own.py has no {missing}, which {tool}.py needs.\n'
        'Inherit them with _base_, as the configs of this suite do.'
    )


COCO_IS_MISSING = """\
{path}, which train_dataloader reads, does not exist.
COCO 2017 is at https://cocodataset.org/#download; expected are \
data/coco/annotations/instances_{{train,val}}2017.json and data/coco/{{train,val}}2017/*.jpg
A copy elsewhere can be linked: ln -s /path/to/it data/coco
To run this config on generated data instead, add --demo-data."""
ADE20K_IS_MISSING = """\
{path}, which train_dataloader reads, does not exist.
ADE20K is at http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip; expected are \
data/ade/ADEChallengeData2016/{{images,annotations}}/{{training,validation}}/
A copy elsewhere can be linked: ln -s /path/to/it data/ade/ADEChallengeData2016
To run this config on generated data instead, add --demo-data."""
IMAGENET_IS_MISSING = """\
{path}, which train_dataloader reads, does not exist.
ImageNet-1K is at https://image-net.org/download.php; expected are \
data/imagenet/{{train,val}}/CLASS/*.JPEG and data/imagenet/meta/{{train,val}}.txt
A copy elsewhere can be linked: ln -s /path/to/it data/imagenet
To run this config on generated data instead, add --demo-data."""


def test_exit_status_and_stderr_of_the_process(tmp_path):
    """The other tests call main() in their own process."""
    result = subprocess.run(
        command('train.py', DET), cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 1
    assert 'Traceback' not in result.stdout
    assert error_of(result.stderr) == COCO_IS_MISSING.format(path=tmp_path / 'data' / 'coco')
    assert not list(tmp_path.iterdir())


def test_distributed_processes_report_an_error_once(tmp_path):
    stderr = run('dist_train.sh', DET, 2, cwd=tmp_path, status=1)
    assert stderr.count('error: ') == 1
    of_torchrun = re.compile(r'^[WE]\d{4} .*torch/distributed/elastic.*\n', re.MULTILINE)
    assert error_of(of_torchrun.sub('', stderr)) == COCO_IS_MISSING.format(
        path=tmp_path / 'data' / 'coco'
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('config', 'root', 'path', 'message'),
    [
        (DET, 'data/coco', 'annotations/instances_train2017.json', COCO_IS_MISSING),
        (SEG, 'data/ade/ADEChallengeData2016', 'images/training', ADE20K_IS_MISSING),
        (CLS, 'data/imagenet', 'train', IMAGENET_IS_MISSING),
    ],
    ids=['coco', 'ade20k', 'imagenet'],
)
def test_missing_data(call, config, root, path, message, empty_folder):
    root = empty_folder / root
    assert error_of(call('train', config, status=1)) == message.format(path=root)
    assert not list(empty_folder.iterdir())

    # With the root in place, the first file or folder that is missing in it is named.
    root.mkdir(parents=True)
    assert error_of(call('train', config, status=1)) == message.format(path=root / path)
    assert not (empty_folder / 'work_dirs').exists()


def test_missing_data_of_other_kinds(raises, empty_folder):
    dataset = dict(type='OwnDataset', data_root='own', ann_file='train.txt')
    cfg = Config(dict(val_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dataset))))
    where = 'Set data_root, ann_file and data_prefix of val_dataloader.dataset in the config.'
    with raises(f'{empty_folder}/own, which val_dataloader reads, does not exist.\n{where}'):
        launch.check_data(cfg, 'train', 'val')
    (empty_folder / 'own').mkdir()
    with raises(
        f'{empty_folder}/own/train.txt, which val_dataloader reads, does not exist.\n{where}'
    ):
        launch.check_data(cfg, 'val')
    (empty_folder / 'own' / 'train.txt').touch()
    launch.check_data(cfg, 'val')

    cfg.val_evaluator = [dict(type='CocoMetric', ann_file='own/instances.json')]
    with raises(
        f'{empty_folder}/own/instances.json, the ann_file of val_evaluator, does not exist.'
    ):
        launch.check_data(cfg, 'val')
    remote = dict(type='CocoDataset', data_root='s3://bucket/coco', ann_file='train.json')
    launch.check_data(Config(dict(test_dataloader=dict(dataset=remote))), 'test')


def test_missing_pretrained_weights(raises, empty_folder):
    weights = PUBLISHED['unireplknet_t_in1k']
    init = dict(type='Pretrained', checkpoint=f'weights/{weights.file_name}')
    cfg = Config(dict(model=dict(backbone=dict(type='UniRepLKNet', init_cfg=init))))
    with raises(
        f'the file to start from, {empty_folder}/weights/{weights.file_name}, does not exist: download '
        f'it from {weights.url}, or write unireplknet_t_in1k in its place'
    ):
        launch.check_pretrained(cfg)

    cfg.resume = True  # the weights come from the checkpoint
    launch.check_pretrained(cfg)
    assert cfg.model.backbone.init_cfg is None

    cfg = Config(dict(model=dict(), load_from='detector.pth'))
    with raises(f'checkpoint {empty_folder}/detector.pth does not exist'):
        launch.check_pretrained(cfg)
    cfg.load_from = 'unireplknet_t_in2k'
    with raises(
        f'checkpoint {empty_folder}/unireplknet_t_in2k does not exist; published are '
        'unireplknet_t_in1k, unireplknet_s_in22k, unireplknet_l_in22k'
    ):
        launch.check_pretrained(cfg)


def test_a_path_from_the_home_folder(monkeypatch, raises, empty_folder):
    monkeypatch.setenv('HOME', str(empty_folder))
    with raises(f'checkpoint {empty_folder}/x.pth does not exist'):
        launch.check_checkpoint('~/x.pth')
    torch.save(dict(a=torch.ones(1)), 'x.pth')
    launch.check_checkpoint('~/x.pth')
    assert load_checkpoint('~/x.pth') == dict(a=torch.ones(1))


@needs_no_gpu
def test_no_gpu(call, nothing_left):
    reason = f'torch {torch.__version__} sees none'
    if torch.version.cuda is None:
        reason = f'torch {torch.__version__} is built without CUDA'
    assert error_of(call('train', DET, '--device', 'cuda', status=1)) == (
        f'--device cuda asks for a GPU, but {reason}.\nRun with --device cpu.'
    )


def test_more_processes_than_gpus(monkeypatch, raises):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    with raises(
        '2 processes were started on a machine with 1 GPU(s).\nStart at most 1, or add --device cpu.'
    ):
        launch.prepare_device(Config(), 'pytorch', 'auto')


def test_launcher_without_torchrun(call, monkeypatch, nothing_left):
    monkeypatch.delenv('RANK', raising=False)
    assert error_of(call('train', DET, '--launcher', 'pytorch', status=1)) == (
        '--launcher pytorch expects to be started by torchrun.\n'
        'Use tools/dist_train.sh CONFIG GPUS or tools/dist_test.sh CONFIG CHECKPOINT GPUS.'
    )


@needs_no_gpu
def test_slurm_without_gpu(call, nothing_left):
    assert error_of(call('train', DET, '--launcher', 'slurm', status=1)) == (
        '--launcher slurm needs GPUs, and there is none. On CPU, several processes are\n'
        'started with tools/dist_train.sh CONFIG PROCESSES.'
    )


def test_unwritable_work_dir(call, empty_folder):
    (empty_folder / 'file').touch()
    arguments = (CONFIGS / 'cls_small.py', '--demo-data', '--work-dir', 'file/work')
    assert error_of(call('train', *arguments, status=1)) == (
        f'cannot write to {empty_folder}/file/work: Not a directory.\n'
        'Choose another one with --work-dir.'
    )
    assert not (empty_folder / 'work_dirs').exists()


def test_read_only_work_dir(empty_folder, monkeypatch):
    if os.access('/proc', os.F_OK):
        with pytest.raises(launch.UserError) as info:
            launch.create_work_dir(Config(dict(work_dir='/proc/work')))
        pattern = r'cannot write to /proc/work: .+\.\nChoose another one with --work-dir\.'
        assert re.fullmatch(pattern, str(info.value))  # what the system says differs
    launch.create_work_dir(Config(dict(work_dir='new/work')))
    assert (empty_folder / 'new' / 'work').is_dir()
    assert not list((empty_folder / 'new' / 'work').iterdir())


def test_checkpoint_to_resume_from(call, raises, empty_folder):
    assert error_of(call('train', DET, '--resume', 'nowhere.pth', status=1)) == (
        f'checkpoint {empty_folder}/nowhere.pth does not exist'
    )

    work_dir = empty_folder / 'work'
    cfg = Config(dict(work_dir=str(work_dir), load_from='pretrained.pth'))
    launch.set_resume(cfg, 'auto')
    assert (cfg.get('resume'), cfg.load_from) == (None, 'pretrained.pth')

    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text('/before/it/moved/iter_2.pth')
    with raises(
        f'checkpoint /before/it/moved/iter_2.pth, which {work_dir}/last_checkpoint names, does not exist.\n'
        'Name another one with --resume CHECKPOINT, or remove that record to start anew.'
    ):
        launch.set_resume(cfg, 'auto')
    (work_dir / 'iter_2.pth').touch()
    launch.set_resume(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (True, str(work_dir / 'iter_2.pth'))


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('train_cfg', "--cfg-options takes KEY=VALUE, not 'train_cfg'"),
        (
            'model.backbone.arch.depths=1',
            "--cfg-options does not fit the config: arch={'depths': 1} in child config cannot inherit from "
            "base because arch is a dict in the child config but is of type <class 'str'> in base config. "
            'You may set `_delete_=True` to ignore the base config.',
        ),
        ('a=[1,2', '--cfg-options cannot be read: Imbalanced brackets exist in [1,2'),
    ],
)
def test_options_that_do_not_fit(call, option, message, nothing_left):
    assert error_of(call('train', DET, '--cfg-options', option, status=1)) == message


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (
            'arch=q',
            "unknown arch 'q': choose from a, f, p, n, t, s, b, l, xl, h, or pass dict(depths=..., "
            'channels=..., kernel_sizes=...)',
        ),
        (
            'norm_cfg.type=NoNorm',
            "norm_cfg={'type': 'NoNorm'} names no layer that is registered: use BN, SyncBN, BN2d",
        ),
        (
            'conv_cfg.type=NoConv',
            "conv_cfg={'type': 'NoConv'} names no layer that is registered: use Conv2d, Conv",
        ),
        (
            'branches.13=[(5,4)]',
            'branch (kernel size 5, dilation 4) does not fit a 13×13 kernel: the size must be odd and '
            '(size-1)·dilation+1 = 17 at most 13',
        ),
    ],
)
def test_backbone_that_cannot_be_built(call, option, message, empty_folder):
    """Said by the backbone, deep in MMEngine's building of the runner."""
    arguments = (CLS, '--demo-data', '--cfg-options', f'model.backbone.{option}')
    error = error_of(call('train', *arguments, status=1))
    # mmengine 0.10.7 names the class of each level that it built.
    assert re.sub(r'^(class `\w+` in [\w/]+\.py: )*', '', error) == message


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (
            'model.backbone.type=UniRepLKNt',
            'the config names UniRepLKNt, which is no registered model. Did you mean UniRepLKNet?\n'
            'One of your own is registered by its module: name that in custom_imports.',
        ),
        (
            'custom_hooks.0.type=EMAHok',
            'the config names EMAHok, which is no registered hook. Did you mean EMAHook?\n'
            'One of your own is registered by its module: name that in custom_imports.',
        ),
        (
            'model.backbone.drop_path_rat=0.1',
            'UniRepLKNet takes no argument drop_path_rat, which the config gives it. Did you mean '
            'drop_path_rate?',
        ),
        (
            'optim_wrapper.optimizer.weight_decy=0.1',
            'AdamW takes no argument weight_decy, which the config gives it. Did you mean weight_decay?',
        ),
    ],
)
def test_misspelt_type_or_argument(call, option, message, empty_folder):
    config = CONFIGS / 'cls_small.py'
    (empty_folder / 'own.py').write_text(
        f'_base_ = {str(config)!r}\ncustom_hooks = [dict(type="EMAHook")]\n'
    )
    arguments = ('own.py', '--demo-data', '--cfg-options', option)
    assert error_of(call('train', *arguments, status=1)) == message


def test_misspelt_type_without_a_runner(call, empty_folder):
    torch.save(dict(state_dict=dict(x=torch.ones(1))), 'x.pth')
    option = 'model.backbone.type=UniRepLKNt'
    for tool, more in (('reparameterize', ['x.pth', 'y.pth']), ('get_flops', [])):
        arguments = (CONFIGS / 'cls_small.py', *more, '--cfg-options', option)
        assert error_of(call(tool, *arguments, status=1)).startswith(
            'the config names UniRepLKNt, which is no registered model. Did you mean UniRepLKNet?'
        )


def test_the_same_exceptions_of_a_program_keep_their_traceback():
    cfg = Config(dict(model=dict(type='UniRepLKNet', arch='a', note='ResNet')))
    for problem in (
        KeyError('ResNet is not in the mmengine::model registry. Please check'),
        TypeError("UniRepLKNet.__init__() got an unexpected keyword argument 'x'"),
        TypeError("load() got an unexpected keyword argument 'arch'"),
        TypeError(
            "UniRepLKNet.__init__() got an unexpected keyword argument 'arch'"
        ),  # it takes one
        KeyError('x'),
        TypeError('x'),
    ):
        with pytest.raises(type(problem)) as info, launch.explain_mistakes(cfg):
            raise problem
        assert info.value is problem


def test_option_of_a_key_that_the_config_does_not_have(log):
    options = {'mdoel.backbone.arch': 's', 'load_from': 'x', 'mdoel.head': 1}
    cfg = launch.load_config(CLS, options)
    launch.override(cfg, options)
    assert cfg.mdoel.backbone.arch == 's'
    assert log == ['--cfg-options sets mdoel, which the config does not have. Did you mean model?']


def test_schedules_that_a_training_cannot_have(call, raises, empty_folder):
    cfg = launch.load_config(CLS, ['train_cfg.max_epochs=2'])
    _first, second = cfg.param_scheduler
    second.pop('end', None)
    with raises(
        'CosineAnnealingLR of param_scheduler begins at 5, but the training ends at 2 '
        '(train_cfg.max_epochs=2).\n'
        'A shorter training needs shorter schedules: set their begin and end too.'
    ):
        launch.check_schedule(cfg)
    second.end = 4
    with pytest.raises(launch.UserError, match='begins at 5, but ends at 4'):
        launch.check_schedule(cfg)
    for count in (0, -1, 1.5):
        cfg = Config(dict(optim_wrapper=dict(accumulative_counts=count)))
        with raises(
            f'optim_wrapper.accumulative_counts is {count}: it counts the batches of an update step, 1 '
            'without accumulation.'
        ):
            launch.check_schedule(cfg)
    for path in (DET, SEG, CLS):
        launch.check_schedule(launch.load_config(path))


def test_batches_larger_than_the_data(call, empty_folder):
    options = ('train_dataloader.batch_size=64', 'train_dataloader.drop_last=True')
    arguments = (CONFIGS / 'cls_small.py', '--demo-data', '--cfg-options', *options)
    assert error_of(call('train', *arguments, status=1)) == (
        'there are fewer images than one batch of 64, and drop_last leaves out what does not fill one: '
        'lower train_dataloader.batch_size.'
    )


def test_auto_scale_lr_without_batch_size(raises):
    for cfg in (Config(), Config(dict(auto_scale_lr=dict(enable=False)))):
        with raises(
            '--auto-scale-lr needs the batch size that the learning rate is for:\n'
            'auto_scale_lr = dict(base_batch_size=...) in the config.'
        ):
            launch.enable_auto_scale_lr(cfg)
    cfg = Config.fromfile(DET)
    launch.enable_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)


def test_amp_of_an_unknown_optimizer_wrapper(monkeypatch, raises):
    cfg = Config(dict(optim_wrapper=dict(type='DeepSpeedOptimWrapper')))
    with raises(
        '--amp replaces an OptimWrapper, but the optim_wrapper of the config is DeepSpeedOptimWrapper.'
    ):
        launch.enable_amp(cfg)
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=1))))
    monkeypatch.setattr(arguments, 'get_device', lambda: 'cpu')
    with raises('mixed precision on CPU is bfloat16; float16 needs a GPU.'):
        launch.enable_amp(cfg, 'float16')


def test_checkpoints_are_looked_into_before_anything_is_built(call, monkeypatch, empty_folder):
    monkeypatch.setattr(launch.runner, 'build_runner', None)
    monkeypatch.setattr(launch, 'build_runner', None)

    def error(tool, *more):
        arguments = (CONFIGS / 'cls_small.py', *more, '--demo-data', '--work-dir', 'work')
        return error_of(call(tool, *arguments, status=1))

    torch.save(dict(state_dict={'layer1.0.conv1.weight': torch.zeros(1)}), 'foreign.pth')
    message = (
        "checkpoint foreign.pth: the weights are not of a UniRepLKNet: they look like a ResNet's "
        '(layer1.0.conv1.weight)'
    )
    assert error('test', 'foreign.pth') == message
    assert error('train', '--resume', 'foreign.pth') == message
    assert error('train', '--cfg-options', 'load_from=foreign.pth') == message

    weights = MODELS.build(Config.fromfile(CONFIGS / 'cls_small.py').model.backbone).state_dict()
    torch.save(dict(state_dict=weights), 'weights.pth')
    assert error('train', '--resume', 'weights.pth') == (
        'checkpoint weights.pth: it does not say how far a training was (meta.epoch, meta.iter), so none '
        'can go on from it.\n'
        'To start a new training from its weights, set load_from instead of resuming.'
    )
    torch.save(dict(meta=dict(epoch=1, iter=2)), 'empty.pth')
    assert error('test', 'empty.pth') == (
        'checkpoint empty.pth: no weights in the checkpoint: it holds meta'
    )
    for runner_type in ('FlexibleRunner', FlexibleRunner):  # whose shards are another matter
        cfg = Config(dict(runner_type=runner_type, model=dict(type='UniRepLKNet')))
        launch.check_content(cfg, 'empty.pth')


@pytest.mark.parametrize('tool', ['test', 'reparameterize'])
def test_checkpoint_that_cannot_be_read(call, tool, empty_folder):
    def error(checkpoint):
        more = dict(test=['--work-dir', 'work'], reparameterize=['out.pth'])[tool]
        return error_of(call(tool, CONFIGS / 'two_encoders.py', checkpoint, *more, status=1))

    assert error('nowhere.pth') == f'checkpoint {empty_folder}/nowhere.pth does not exist'
    assert error('.') == 'checkpoint . is a directory, and holds no *.pth'

    torch.save(dict(state_dict={'a': torch.zeros(1000)}), 'whole.pth')
    whole = (empty_folder / 'whole.pth').read_bytes()
    (empty_folder / 'truncated.pth').write_bytes(whole[: len(whole) // 2])
    assert error('truncated.pth') == (
        'checkpoint truncated.pth is truncated or corrupt: get or write it again'
    )
    torch.save(dict(state_dict={'layer1.0.conv1.weight': torch.zeros(1)}), 'foreign.pth')
    assert error('foreign.pth') == (
        "checkpoint foreign.pth: the weights are not of a UniRepLKNet: they look like a ResNet's "
        '(layer1.0.conv1.weight)'
    )
    torch.save(dict(state_dict={}, runs=os.getcwd), 'code.pth')
    assert error('code.pth') == (
        'checkpoint code.pth is refused: to read it, posix.getcwd would have to run, and a crafted file '
        'can run any code that way.\n'
        'If you trust its source, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 and try again'
    )
    assert not (empty_folder / 'out.pth').exists()


def test_checkpoint_of_another_config(call, empty_folder):
    config = CONFIGS / 'two_encoders.py'
    model = MODELS.build(Config.fromfile(config).model)
    torch.save({**model.state_dict(), 'classifier.bias': torch.ones(7)}, 'x.pth')
    assert error_of(call('reparameterize', config, 'x.pth', 'out.pth', status=1)) == (
        f'x.pth was not trained with {config}.\n'
        'Error(s) in loading state_dict for TwoEncoders:\n'
        '\tsize mismatch for classifier.bias: copying a param with shape torch.Size([7]) from '
        'checkpoint, the shape in current model is torch.Size([4]).'
    )
    assert not (empty_folder / 'out.pth').exists()


def test_nothing_to_fold_or_not_finite(call, empty_folder):
    config = CONFIGS / 'two_encoders.py'
    model = MODELS.build(Config.fromfile(config).model)
    weights = model.state_dict()
    weights['net.depth_encoder.stages.3.0.gamma'].fill_(float('nan'))
    torch.save(weights, 'nan.pth')
    assert error_of(call('reparameterize', config, 'nan.pth', 'out.pth', status=1)) == (
        'the features change by nan (relative) when the model is folded, more than 1e-03.\n'
        'Nothing was written. Are the weights finite?'
    )
    text = "model = dict(type='Conv2d', in_channels=2, out_channels=2, kernel_size=1)\n"
    (empty_folder / 'own.py').write_text(text)
    torch.save(nn.Conv2d(2, 2, 1).state_dict(), 'conv.pth')
    assert error_of(call('reparameterize', 'own.py', 'conv.pth', 'out.pth', status=1)) == (
        'the model of own.py has nothing to re-parameterize.'
    )
    assert not (empty_folder / 'out.pth').exists()


@pytest.mark.parametrize(
    ('tool', 'option', 'folder', 'named'),
    [
        ('test', ['--out', 'file/x.pkl'], 'file', '--out'),
        ('test', ['--show-dir', 'file/x'], 'file/x', '--show-dir'),
        ('reparameterize', ['file/x.pth'], 'file', 'OUT'),
    ],
)
def test_unwritable_output(call, tool, option, folder, named, empty_folder):
    """Seen before the time for testing is spent."""
    (empty_folder / 'file').touch()
    (empty_folder / 'x.pth').touch()
    option = [*option, '--demo-data'] if tool == 'test' else option
    path = empty_folder / folder
    reason = f'cannot write to {path}: Not a directory.'
    if '/' not in folder:
        reason = f'{path} is a file, not a folder.'
    assert error_of(call(tool, CONFIGS / 'cls_small.py', 'x.pth', *option, status=1)) == (
        f'{reason}\nChoose another one with {named}.'
    )


@pytest.mark.parametrize(
    ('tool', 'option', 'reason'),
    [
        ('reparameterize', ['folder.pkl'], 'folder.pkl is a folder: name a file.'),
        ('test', ['--out', 'folder.pkl'], 'folder.pkl is a folder: name a file.'),
        (
            'reparameterize',
            ['/dev/null'],
            '/dev/null is no file, and cannot be replaced by one: name another one.',
        ),
    ],
)
def test_output_that_is_no_file(call, empty_folder, tool, option, reason):
    """Seen before anything is read or made."""
    (empty_folder / 'folder.pkl').mkdir()
    config = CONFIGS / 'cls_small.py'
    checkpoint = config  # any file: it is not read
    assert error_of(call(tool, config, checkpoint, *option, status=1)) == reason
    assert [path.name for path in empty_folder.iterdir()] == ['folder.pkl']
    assert Path('/dev/null').is_char_device()


def test_no_test_time_augmentation(call, empty_folder):
    (empty_folder / 'x.pth').touch()
    options = ('x.pth', '--demo-data', '--tta')
    assert error_of(call('test', CONFIGS / 'det_small.py', *options, status=1)) == (
        '--tta: the config defines no tta_model and no tta_pipeline.'
    )


def test_nothing_to_draw_with(call, empty_folder):
    (empty_folder / 'x.pth').touch()
    options = ('x.pth', '--work-dir', 'work', '--show')
    assert error_of(call('test', CONFIGS / 'two_encoders.py', *options, status=1)) == (
        '--show: the config has no default_hooks.visualization.'
    )


def test_out_is_no_pickle_file(call, nothing_left):
    stderr = call('test', DET, 'x.pth', '--out', 'x.json', status=2)
    message = 'test.py: error: --out takes a file name that ends with .pkl, not x.json'
    assert stderr.splitlines()[-1] == message
    stderr = call('test', DET, 'x.pth', '--confusion-matrix', 'x.jpg', status=2)
    message = 'test.py: error: --confusion-matrix takes a name with .png, .pdf, .svg, not x.jpg'
    assert stderr.splitlines()[-1] == message


def test_scripts_without_arguments():
    for script in sorted(TOOLS.glob('*_t*.sh')):
        if script.name.startswith(('dist_', 'slurm_')):
            result = subprocess.run(['bash', script, 'x'], capture_output=True, text=True)
            assert result.returncode == 2
            assert result.stderr.startswith('usage: ')


@pytest.mark.parametrize(
    ('gpus', 'variables', 'message'),
    [
        ('two', {}, "the number of GPUs must be a positive integer, not 'two'"),
        ('0', {}, "the number of GPUs must be a positive integer, not '0'"),
        (
            '1',
            dict(NNODES='2'),
            'with NNODES=2, set PORT (and MASTER_ADDR, NODE_RANK) on every machine',
        ),
    ],
)
def test_scripts_with_wrong_numbers(tmp_path, gpus, variables, message):
    stderr = run('dist_train.sh', DET, gpus, cwd=tmp_path, status=2, **variables)
    assert error_of(stderr) == message


def test_errors_that_are_not_the_users_keep_their_traceback():
    def fail_in_a_library():
        return launch.load_config(DET).merge_from_dict(int('x'))

    with pytest.raises(ValueError, match='invalid literal'):
        launch.exit_on_user_error(fail_in_a_library)()


def test_fold_a_checkpoint_without_meta_data_on_a_size_that_exists(call, empty_folder):
    (empty_folder / 'own.py').write_text("model = dict(type='UniRepLKNet', arch='a')\n")
    model = MODELS.build(launch.load_config('own.py').model)
    torch.save(dict(state_dict=model.state_dict(), meta=None), 'x.pth')
    error = call('reparameterize', 'own.py', 'x.pth', 'y.pth', '--input-size', 0, 5, status=2)
    assert '--input-size takes two sizes of at least 1, not [0, 5]' in error
    call('reparameterize', 'own.py', 'x.pth', 'y.pth', '--input-size', 64, 64)
    assert torch.load('y.pth')['meta'] == dict(deploy=True)


def test_confusion_matrix_of_what_is_no_classifier(call, nothing_left):
    arguments = (DET, '--confusion-matrix', 'x.png', '--demo-data')
    assert error_of(call('test', DET, *arguments, status=1)) == (
        '--confusion-matrix is for classifiers of one label, which the model of the config is not.'
    )
