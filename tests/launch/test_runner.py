"""How a run ends: well, and with a full disk, whoever writes to it."""

import errno
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers import SMALL_ARCH
from mmengine.config import Config
from mmengine.hooks import IterTimerHook, LoggerHook
from tool_runs import environment

from unireplknet_mm import launch
from unireplknet_mm.files import NoSpaceError
from unireplknet_mm.launch import runner as runner_module

NO_SPACE = OSError(errno.ENOSPC, 'No space left on device')


@pytest.fixture
def train_with(tmp_path, monkeypatch):
    """Let the runner's training raise an error; what `launch.train` raises then."""

    def train_with(error: OSError) -> OSError:
        def train():
            raise error

        monkeypatch.setattr(runner_module, 'build_runner', lambda cfg: SimpleNamespace(train=train))
        with pytest.raises(OSError) as info:
            launch.train(Config(dict(work_dir=str(tmp_path))))
        return info.value

    return train_with


def test_training_whose_logs_fill_the_disk(train_with, tmp_path, monkeypatch):
    monkeypatch.setattr('shutil.disk_usage', lambda folder: SimpleNamespace(free=1234))
    problem = f'{tmp_path} cannot be written: 1.2 kB are free on its disk.\n'
    way_out = 'Make room there, or write to another disk.'
    assert str(train_with(NO_SPACE)) == problem + way_out
    (tmp_path / 'last_checkpoint').write_text('there/epoch_2.pth')
    error = train_with(NO_SPACE)
    assert str(error) == f'{problem}{way_out} --resume goes on from there/epoch_2.pth.'
    assert isinstance(error, NoSpaceError) and error.errno == errno.ENOSPC


def test_other_errors_of_a_training_stay_what_they_are(train_with):
    error = OSError(errno.EIO, 'Input/output error')
    assert train_with(error) is error


def test_tool_that_meets_a_full_disk(capsys):
    @launch.exit_on_user_error
    def tool(error):
        raise error

    with pytest.raises(SystemExit) as info:
        tool(NO_SPACE)
    assert info.value.code == 1
    assert capsys.readouterr().err == (
        'error: a file cannot be written: no space is left on its disk.\n'
        'Make room there, or write to another disk.\n'
    )
    with pytest.raises(FileNotFoundError):
        tool(FileNotFoundError(errno.ENOENT, 'No such file or directory'))


def test_log_that_does_not_fit_ends_the_run(tmp_path, monkeypatch, capsys):
    cfg = Config(
        dict(
            model=dict(type='UniRepLKNet', arch=SMALL_ARCH),
            work_dir=str(tmp_path),
            experiment_name=f'log_{os.urandom(4).hex()}',
        )
    )
    logger = launch.build_runner(cfg).logger
    (handler,) = (part for part in logger.handlers if isinstance(part, logging.FileHandler))

    def fail(text):
        raise NO_SPACE

    with monkeypatch.context() as patch:
        patch.setattr(handler, 'stream', SimpleNamespace(write=fail, flush=lambda: None))
        with pytest.raises(NoSpaceError) as info:
            logger.info('a line')
    assert str(info.value).startswith(f'{handler.baseFilename} cannot be written: ')
    assert 'Logging error' not in capsys.readouterr().err
    logger.info('%d', 'no number')
    assert 'Logging error' in capsys.readouterr().err, 'other mistakes are no longer shown'


@pytest.mark.parametrize('is_main', [True, False])
def test_one_process_of_a_test_writes_the_scores(is_main, monkeypatch):
    """With two, the file was seen to hold the end of the longer text behind the shorter one."""
    hooks = [IterTimerHook(), LoggerHook()]

    def run_test():
        assert [type(hook) for hook in runner.hooks] == [IterTimerHook, LoggerHook][: 1 + is_main]
        return dict(mIoU=1.0)

    runner = SimpleNamespace(cfg=Config(), hooks=hooks, test=run_test)
    monkeypatch.setattr(runner_module, 'is_main_process', lambda: is_main)
    assert launch.test(runner) == dict(mIoU=1.0)


def test_no_thread_of_gloo_outlives_a_distributed_run():
    """Which would abort the process now and then, when the interpreter is gone."""
    code = """
from pathlib import Path
import torch
from mmengine.config import Config
from torch import nn
from unireplknet_mm import launch

@launch.exit_on_user_error
def tool():
    launch.prepare_device(Config(), 'pytorch', 'cpu')
    model = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
    model.in_a_cycle = [model]
    model(torch.ones(1, 2)).sum().backward()
    print(gloo_threads() > 0)

def gloo_threads():
    return sum('gloo' in path.read_text() for path in Path('/proc/self/task').glob('*/comm'))

tool()
print(gloo_threads())
"""
    variables = dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='localhost', MASTER_PORT='0')
    done = subprocess.run(
        [sys.executable, '-c', code],
        env=environment(CUDA_VISIBLE_DEVICES='', **variables),
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ['True', '0'], done.stderr


def test_losses_are_watched_once_in_any_config_unless_it_says_no():
    def hooks_of(**config):
        cfg = Config(config)
        launch.watch_losses(cfg)
        return cfg.get('custom_hooks')

    ours = dict(type='NonFiniteLossHook')
    assert hooks_of() == [ours]
    assert hooks_of(custom_hooks=[dict(type='EMAHook')]) == [dict(type='EMAHook'), ours]
    assert hooks_of(custom_hooks=[ours]) == [ours]
    assert hooks_of(default_hooks=dict(non_finite_loss=ours)) is None
    assert hooks_of(default_hooks=dict(non_finite_loss=None)) is None
    assert hooks_of(runner_type='FlexibleRunner') is None
