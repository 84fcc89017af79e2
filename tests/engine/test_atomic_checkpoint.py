"""Checkpoints that survive a kill; the order of writing and removing."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from tool_runs import fork, kill
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unireplknet_mm.engine.atomic_checkpoint import AtomicCheckpointHook, AtomicLocalBackend


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


def test_the_backend_writes_whole_files(tmp_path, monkeypatch):
    replaced = []
    replace = os.replace
    monkeypatch.setattr(os, 'replace', lambda *paths: (replaced.append(paths[1]), replace(*paths)))
    AtomicLocalBackend().put(b'\0', tmp_path / 'a')
    AtomicLocalBackend().put_text('text', tmp_path / 'b')
    assert replaced == [tmp_path / 'a', tmp_path / 'b']
    assert (tmp_path / 'a').read_bytes() == b'\0'
    assert (tmp_path / 'b').read_text() == 'text'


def train_and_stop_while_writing(work_dir, writing):
    """Half of the second checkpoint gets to the disk."""

    def slow_fsync(descriptor, fsync=os.fsync):
        path = os.readlink(f'/proc/self/fd/{descriptor}')
        if 'iter_2.pth' in path:
            os.truncate(path, os.path.getsize(path) // 2)
            writing.touch()
            time.sleep(600)
        fsync(descriptor)

    os.fsync = slow_fsync
    train(work_dir, max_iters=4, max_keep_ckpts=1)


@pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason='needs /proc to see what is written')
def test_kill_while_writing_leaves_the_previous_checkpoint(tmp_path):
    writing = tmp_path / 'writing'
    process = fork(train_and_stop_while_writing, tmp_path, writing)
    while not writing.exists() and process.is_alive():
        time.sleep(0.01)
    kill([process])
    assert process.exitcode == -signal.SIGKILL

    assert checkpoints(tmp_path) == ['iter_1.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'iter_1.pth')
    assert len(list(tmp_path.glob('.*.partial'))) == 1
    assert torch.load(tmp_path / 'iter_1.pth', weights_only=False)['meta']['iter'] == 1

    runner = train(tmp_path, max_iters=4, max_keep_ckpts=1, resume=True)
    assert runner.iter == 4
    assert checkpoints(tmp_path) == ['iter_4.pth']
    assert not list(tmp_path.glob('.*.partial'))
