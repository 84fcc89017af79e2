"""Checkpoints that survive a kill; the order of writing and removing; deploy before a test."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import SMALL_ARCH, randomise, relative_error
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unireplknet_mm.engine.atomic_checkpoint import AtomicCheckpointHook, AtomicLocalBackend
from unireplknet_mm.engine.checkpoint_check import SwitchToDeployHook
from unireplknet_mm.files import remove_partial_files, replacing
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.whole_model import switch_to_deploy

ROOT = Path(__file__).parents[2]


class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, *inputs, mode='tensor'):
        output = self.linear(torch.stack(inputs[0]))
        return dict(loss=output.square().mean()) if mode == 'loss' else [output]


class ScoreMetric(BaseMetric):
    """Reports the scores it was given, one an evaluation."""

    def __init__(self, scores):
        super().__init__()
        self.scores = iter(scores)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(acc=next(self.scores))


def train(work_dir, hook=None, max_iters=4, resume=False, scores=None, name='toy', **hook_args):
    loader = DataLoader(
        TensorDataset(torch.arange(16.0).view(8, 2)),
        batch_size=2,
        collate_fn=lambda samples: [[sample[0] for sample in samples]],
    )
    hook_type = hook or AtomicCheckpointHook
    hook = dict(type=hook_type, interval=1, by_epoch=False, **hook_args)
    validation = {}
    if scores:
        validation = dict(
            val_dataloader=loader, val_evaluator=Evaluator([ScoreMetric(scores)]), val_cfg=dict()
        )
    runner = Runner(
        model=ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=False, max_iters=max_iters, val_interval=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.001, momentum=0.9)),
        default_hooks=dict(checkpoint=hook),
        default_scope='mmengine',
        experiment_name=f'{name}_{os.urandom(4).hex()}',
        resume=resume,
        log_level='WARNING',
        **validation,
    )
    runner.train()
    return runner


def checkpoints(work_dir):
    return sorted(path.name for path in Path(work_dir).glob('*.pth'))


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg', 'mmpretrain'])
def test_hook_is_found_in_every_scope(scope):
    from mmengine.registry import HOOKS

    with DefaultScope.overwrite_default_scope(scope):
        hook = HOOKS.build(dict(type='AtomicCheckpointHook', interval=3, max_keep_ckpts=2))
    assert isinstance(hook, CheckpointHook)
    assert (hook.interval, hook.max_keep_ckpts) == (3, 2)


def test_only_the_newest_checkpoints_stay(tmp_path):
    train(tmp_path, max_iters=4, max_keep_ckpts=2)
    assert checkpoints(tmp_path) == ['iter_3.pth', 'iter_4.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_4.pth')
    assert not list(tmp_path.glob('.*'))

    runner = train(tmp_path, max_iters=6, max_keep_ckpts=2, resume=True)
    assert runner.iter == 6
    assert checkpoints(tmp_path) == ['iter_5.pth', 'iter_6.pth']


def test_old_checkpoint_is_removed_after_the_new_one_is_written(tmp_path, monkeypatch):
    """At every moment in which a file is replaced or removed, a complete one is there."""
    existing = []

    def note(function):
        def noted(*args, **kwargs):
            existing.append(checkpoints(tmp_path))
            return function(*args, **kwargs)

        return noted

    monkeypatch.setattr(os, 'replace', note(os.replace))
    monkeypatch.setattr(AtomicLocalBackend, 'remove', note(AtomicLocalBackend.remove))
    train(tmp_path, max_iters=3, max_keep_ckpts=1)

    first = existing.index(['iter_1.pth'])
    assert all(existing[first:])
    assert ['iter_1.pth', 'iter_2.pth'] in existing
    assert checkpoints(tmp_path) == ['iter_3.pth']


def test_interrupted_removal_is_made_up_for_on_resume(tmp_path, monkeypatch):
    def interrupt(self, path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AtomicLocalBackend, 'remove', interrupt)
        train(tmp_path, max_iters=3, max_keep_ckpts=1)
    assert checkpoints(tmp_path) == ['iter_1.pth', 'iter_2.pth']
    train(tmp_path, max_iters=3, max_keep_ckpts=1, resume=True)
    assert checkpoints(tmp_path) == ['iter_3.pth']


def test_former_best_checkpoint_is_removed_last(tmp_path, monkeypatch):
    states = []

    def note(backend, path):
        states.append((Path(path).name, checkpoints(tmp_path)))
        os.remove(path)

    monkeypatch.setattr(AtomicLocalBackend, 'remove', note)
    train(tmp_path, max_iters=3, save_best='acc', scores=[0.1, 0.3, 0.2])
    assert states == [
        (
            'best_acc_iter_1.pth',
            ['best_acc_iter_1.pth', 'best_acc_iter_2.pth', 'iter_1.pth', 'iter_2.pth'],
        )
    ]
    assert checkpoints(tmp_path) == [
        'best_acc_iter_2.pth',
        'iter_1.pth',
        'iter_2.pth',
        'iter_3.pth',
    ]
    hub = torch.load(tmp_path / 'iter_2.pth', weights_only=False)['message_hub']
    assert hub['runtime_info']['best_ckpt'] == str(tmp_path / 'best_acc_iter_2.pth')


def test_best_checkpoint_that_keeps_its_name_is_not_removed(tmp_path):
    runner = train(tmp_path, max_iters=2, save_best='acc', scores=[0.1, 0.2])
    hook = next(hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook))
    for score in (0.3, 0.4):  # better, and still iteration 2
        hook._save_best_checkpoint(runner, dict(acc=score))
        assert checkpoints(tmp_path) == ['best_acc_iter_2.pth', 'iter_1.pth', 'iter_2.pth']


def test_weights_alone_are_nothing_to_resume_from(tmp_path):
    weights = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=ToyModel().state_dict()), weights)
    (tmp_path / 'last_checkpoint').write_text(str(weights))
    with pytest.raises(ValueError, match=r'no meta and no message_hub.*load_from'):
        train(tmp_path, resume=True)


def test_other_backends_are_left_alone(tmp_path):
    hook = AtomicCheckpointHook(interval=1, by_epoch=False, backend_args=dict(backend='local'))
    runner = train(tmp_path, max_iters=1, backend_args=dict(backend='local'))
    used = next(h for h in runner.hooks if isinstance(h, AtomicCheckpointHook))
    assert used.backend_args == hook.backend_args == dict(backend='local')
    assert checkpoints(tmp_path) == ['iter_1.pth']


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = tmp_path / 'weights.pth'
    AtomicLocalBackend().put(b'old', target)

    def disk_full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', disk_full)
    with pytest.raises(OSError, match='No space left'):
        AtomicLocalBackend().put(b'new', target)
    assert [path.name for path in tmp_path.iterdir()] == ['weights.pth']
    assert target.read_bytes() == b'old'


def test_written_file_has_the_usual_permissions(tmp_path):
    (tmp_path / 'plain').write_bytes(b'')
    AtomicLocalBackend().put_text('text', tmp_path / 'new' / 'atomic')
    assert (tmp_path / 'new' / 'atomic').read_text() == 'text'
    modes = [(tmp_path / name).stat().st_mode for name in ('plain', 'new/atomic')]
    assert modes[0] == modes[1]


def test_partial_files_are_removed_and_others_are_not(tmp_path):
    with replacing(tmp_path / 'iter_1.pth') as partial:
        partial.write_bytes(b'half')
        stale = partial.rename(partial.with_name(partial.name.replace('iter_1', 'iter_2')))
        partial.write_bytes(b'whole')
    (tmp_path / '.hidden').touch()
    assert remove_partial_files(tmp_path) == [stale]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.hidden', 'iter_1.pth']


KILLED_WHILE_WRITING = """
import os, sys, time
sys.path.insert(0, {tests!r})
from engine import test_atomic_checkpoint

written = []
def slow_fsync(descriptor, fsync=os.fsync):
    path = os.readlink(f'/proc/self/fd/{{descriptor}}')
    if 'iter_2.pth' in path:
        os.truncate(path, os.path.getsize(path) // 2)
        print('writing', flush=True)
        time.sleep(600)
    fsync(descriptor)

os.fsync = slow_fsync
test_atomic_checkpoint.train({work_dir!r}, max_iters=4, max_keep_ckpts=1)
"""


@pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason='needs /proc to see what is written')
def test_kill_while_writing_leaves_the_previous_checkpoint(tmp_path):
    script = KILLED_WHILE_WRITING.format(tests=str(ROOT / 'tests'), work_dir=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, '-c', script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'ops')])},
    )
    assert any(line.strip() == 'writing' for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()

    assert checkpoints(tmp_path) == ['iter_1.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_1.pth')
    assert len(list(tmp_path.glob('.*.partial'))) == 1
    assert torch.load(tmp_path / 'iter_1.pth', weights_only=False)['meta']['iter'] == 1

    runner = train(tmp_path, max_iters=4, max_keep_ckpts=1, resume=True)
    assert runner.iter == 4
    assert checkpoints(tmp_path) == ['iter_4.pth']
    assert not list(tmp_path.glob('.*.partial'))


def test_switch_to_deploy_folds_the_outermost_modules():
    model = nn.Sequential(UniRepLKNet(SMALL_ARCH), nn.Linear(2, 2))
    randomise(model).eval()
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = model[0](x)
    assert switch_to_deploy(model) == 1
    assert model[0].deploy
    for actual, wanted in zip(model[0](x), expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=1e-3, atol=1e-4)
    assert switch_to_deploy(nn.Linear(2, 2)) == 0


def test_testing_the_deploy_structure_of_averaged_weights():
    """An EMAHook swaps the model's tensors with the averages': both must have the same structure."""
    model = nn.Sequential(randomise(UniRepLKNet(SMALL_ARCH))).eval()
    average = EMAHook(update_buffers=True)
    runner = SimpleNamespace(model=model, hooks=[average], logger=logging.getLogger('test'))
    average.before_run(runner)
    randomise(average.ema_model.module, seed=1)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = average.ema_model.module(x)
        SwitchToDeployHook().before_test(runner)
        average.before_test_epoch(runner)
        actual = model(x)
    assert all(relative_error(a, e) < 2e-5 for a, e in zip(actual, expected, strict=True))
