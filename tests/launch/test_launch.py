"""From a config file to a runner: what `launch` changes in a config. Its errors: tests/tools."""

import errno
import tempfile
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from unireplknet_mm import launch
from unireplknet_mm.configuration import find_dicts
from unireplknet_mm.files import NoSpaceError
from unireplknet_mm.launch import arguments, device

CONFIGS = Path(__file__).parents[2] / 'configs'
DET = CONFIGS / 'det' / 'cascade_unireplknet_t_3x.py'
CLS = CONFIGS / 'cls' / 'unireplknet_t_in1k.py'


def test_amp_by_device(monkeypatch):
    def enabled(name, wrapper, dtype=None):
        monkeypatch.setattr(arguments, 'get_device', lambda: name)
        cfg = Config(dict(optim_wrapper=wrapper))
        launch.enable_amp(cfg, dtype)
        return cfg.optim_wrapper.to_dict()

    plain, amp = dict(type='OptimWrapper'), dict(type='AmpOptimWrapper')
    scaled = dict(amp, loss_scale=512.0)
    assert enabled('cuda', {}) == dict(amp, loss_scale='dynamic')
    assert enabled('cuda', plain, 'bfloat16') == dict(amp, dtype='bfloat16', loss_scale=1.0)
    assert enabled('cuda', scaled) == scaled
    assert enabled('cpu', dict(scaled, dtype='float16')) == dict(type='CpuAmpOptimWrapper')


def test_option_with_a_blank():
    options = ['load_from=/my dir/x.pth', 'train_cfg.max_epochs=2', 'model.neck.in_channels=[1, 2]']
    cfg = launch.load_config(DET, options)
    assert (cfg.load_from, cfg.train_cfg.max_epochs) == ('/my dir/x.pth', 2)
    assert cfg.model.neck.in_channels == [1, 2]


def test_sync_norms_become_batch_norms(monkeypatch):
    norm = dict(type='SyncBN', requires_grad=True)
    model = dict(backbone=dict(norm_cfg=norm), head=[dict(norm_cfg=dict(norm)), dict(type='FC')])
    monkeypatch.setattr(device, 'get_device', lambda: 'cuda')
    cfg = Config(dict(model=model, sync_bn='torch'))
    launch.prepare_device(cfg, 'none', 'auto')
    assert cfg.model.backbone.norm_cfg == dict(type='BN', requires_grad=True)
    assert cfg.model['head'][0].norm_cfg.type == 'BN'
    assert 'sync_bn' not in cfg


def test_work_dir():
    cfg = Config.fromfile(DET)
    launch.set_work_dir(cfg, None)
    assert cfg.work_dir == 'work_dirs/cascade_unireplknet_t_3x'
    launch.set_work_dir(cfg, 'elsewhere')
    assert cfg.work_dir == 'elsewhere'
    launch.set_work_dir(cfg, None)
    assert cfg.work_dir == 'elsewhere', 'a work_dir in the config counts'

    cfg = Config.fromfile(DET)
    launch.set_work_dir(cfg, None, demo_data=True)
    assert cfg.work_dir == 'work_dirs/cascade_unireplknet_t_3x_demo'


def test_seed(tmp_path):
    torch.save(dict(meta=dict(seed=7)), tmp_path / 'x.pth')
    cases = [  # seed in the config, on the command line, resumed; expected
        (None, None, False, None),
        (3, None, False, 3),
        (3, 5, False, 5),
        (None, None, True, 7),
        (3, None, True, 7),  # --seed 7 at its start
        (3, 5, True, 5),
    ]
    for in_config, given, resume, expected in cases:
        cfg = Config(dict(randomness=dict(seed=in_config), resume=resume))
        cfg.load_from = str(tmp_path / 'x.pth')
        launch.set_seed(cfg, given)
        assert cfg.randomness['seed'] == expected


def test_resumable_training_is_set_up_once():
    cfg = Config.fromfile(DET)
    before = cfg.train_dataloader.to_dict()
    for _ in range(2):
        launch.make_resumable(cfg)
    assert cfg.train_dataloader.to_dict() == dict(
        before,
        dataset=dict(type='SeededDataset', dataset=before['dataset']),
        sampler=dict(type='SeededSampler', sampler=before['sampler']),
        batch_sampler=dict(type='SeekableBatchSampler', batch_sampler=before['batch_sampler']),
    )
    hooks = ['SeededIterationHook', 'SkipSeenBatchesHook']
    assert [hook['type'] for hook in cfg.custom_hooks] == hooks

    cfg = Config.fromfile(CLS)
    launch.make_resumable(cfg)
    assert 'batch_sampler' not in cfg.train_dataloader
    assert [hook['type'] for hook in cfg.custom_hooks] == [*hooks, 'PendingGradientsHook']


@pytest.mark.parametrize('wrapper', [None, dict(type='MMSeparateDistributedDataParallel')])
def test_processes_on_cpu(wrapper, monkeypatch):
    monkeypatch.setattr(device, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setenv('RANK', '0')
    groups = []
    monkeypatch.setattr(device.distributed, 'init_process_group', groups.append)
    cfg = Config.fromfile(DET)
    cfg.model_wrapper_cfg = wrapper
    launch.prepare_device(cfg, 'pytorch', 'auto')
    assert groups == ['gloo']
    assert cfg.env_cfg.dist_cfg.backend == 'gloo'
    assert cfg.model_wrapper_cfg.device_ids is None
    assert cfg.model_wrapper_cfg.type == (wrapper or dict(type='MMDistributedDataParallel'))['type']
    assert all(config.get('type') != 'SyncBN' for config in find_dicts(cfg.model))


def test_processes_on_gpu_keep_sync_norms(monkeypatch):
    monkeypatch.setattr(device, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    calls = []
    monkeypatch.setattr(device, 'init_dist', lambda *args, **kwargs: calls.append((args, kwargs)))
    cfg = Config.fromfile(DET)
    launch.prepare_device(cfg, 'pytorch', 'cuda')
    assert calls == [(('pytorch',), dict(backend='nccl'))]
    assert 'model_wrapper_cfg' not in cfg
    assert any(config.get('type') == 'SyncBN' for config in find_dicts(cfg.model))


@pytest.mark.parametrize('randomness', [None, {}, dict(deterministic=True), dict(seed=5)])
@pytest.mark.parametrize('seed', [None, 0, 7])
def test_seed_of_a_config_with_and_without_randomness(randomness, seed):
    """mmdet's, mmseg's and mmpretrain's configs often have none, and Runner insists on a seed."""
    cfg = Config({} if randomness is None else dict(randomness=randomness))
    launch.set_seed(cfg, seed)
    expected = (randomness or {}).get('seed') if seed is None else seed
    assert cfg.randomness == {**(randomness or {}), 'seed': expected}


def test_a_missing_config_in_a_large_folder_is_not_searched_for(monkeypatch, tmp_path):
    def refuse(self, pattern):
        raise AssertionError(f'{self} was searched')

    monkeypatch.setattr(Path, 'rglob', refuse)
    with pytest.raises(launch.UserError, match='does not exist'):
        launch.load_config('/nope.py')
    with pytest.raises(launch.UserError, match='is a folder'):
        launch.load_config(tmp_path)


def test_a_config_that_a_full_disk_keeps_from_being_read(monkeypatch):
    """MMEngine reads a copy in the folder of temporary files."""

    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Config, 'fromfile', fail)
    with pytest.raises(NoSpaceError) as info:
        launch.load_config(DET)
    assert str(info.value).startswith(f'{tempfile.gettempdir()} cannot be written: ')


@pytest.mark.parametrize(
    ('body', 'message'),
    [
        (
            'from unireplknet_mm.errors import MissingPackageError as M\n'
            'try:\n    import no_such_package\n'
            'except ImportError as error:\n    raise M("pip install it") from error',
            'pip install it',
        ),
        ('import no_such_package', "ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_a_module_of_custom_imports_that_lacks_a_package(body, message, monkeypatch, tmp_path):
    (tmp_path / 'imported_by_config.py').write_text(body)
    path = tmp_path / 'config.py'
    path.write_text("custom_imports = dict(imports=['imported_by_config'])")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(launch.UserError) as info:
        launch.load_config(path)
    assert str(info.value) == f'config {path} cannot be read: {message}'
