"""Accumulated gradients: whole update steps in an epoch, and none lost between two of them."""

import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS, MODEL_WRAPPERS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from torch import nn

from unireplknet_mm.engine.accumulation import PendingGradientsHook, WholeStepSampler
from unireplknet_mm.launch import make_resumable


class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.unused = nn.Parameter(torch.ones(1))

    def forward(self, samples, mode='loss'):
        output = self.linear(torch.stack([*samples]) / 10)
        return dict(loss=(output - 1).square().mean())


@HOOKS.register_module()
class NoteHook(Hook):
    """Notes the numbers of the samples and the loss of every iteration, and where weights changed."""

    def before_train(self, runner):
        self.losses, self.samples, self.updates = {}, {}, []
        self.weight = runner.model.linear.weight.detach().clone()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.samples[runner.iter] = [sample[0].item() for sample in data_batch['samples']]
        self.losses[runner.iter] = outputs['loss'].item()
        if not torch.equal(runner.model.linear.weight, self.weight):
            self.weight = runner.model.linear.weight.detach().clone()
            self.updates.append(runner.iter)


@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(AmpOptimWrapper):
    """AmpOptimWrapper's loss scale without its autocast, on CPU. The scale doubles with each update."""

    def __init__(self, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=4.0, growth_interval=1)

    optim_context = OptimWrapper.optim_context


def train(work_dir, train_cfg, accumulated, samples=10, checkpoint=None, **optim_wrapper):
    """The runner after training and its NoteHook; batches of 2, a checkpoint each epoch or iteration."""
    cfg = ConfigDict(
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=[dict(samples=torch.tensor([number, 1.0])) for number in range(samples)],
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.1, momentum=0.9),
            accumulative_counts=accumulated,
            **optim_wrapper,
        ),
        custom_hooks=[dict(type='NoteHook')],
    )
    make_resumable(cfg)
    cfg.train_dataloader.dataset = cfg.train_dataloader.dataset.dataset  # it is no config
    torch.manual_seed(0)
    by_epoch = 'max_epochs' in train_cfg
    runner = Runner(
        model=dict(type=ToyModel),
        work_dir=str(work_dir),
        default_hooks=dict(
            checkpoint=dict(type='AtomicCheckpointHook', interval=1, by_epoch=by_epoch)
        ),
        default_scope='mmengine',
        experiment_name=f'accumulation_{os.urandom(4).hex()}',
        randomness=dict(seed=1),
        load_from=checkpoint,
        resume=checkpoint is not None,
        log_level='ERROR',
        cfg=dict(optim_wrapper=cfg.optim_wrapper),
        **cfg,
    )
    runner.train()
    return runner, next(hook for hook in runner.hooks if isinstance(hook, NoteHook))


@pytest.mark.parametrize(
    ('samples', 'batch_size', 'accumulated', 'drop_last', 'expected'),
    [
        (13, 2, 3, False, 12),  # 7 batches, 6 of them
        (13, 2, 7, False, 13),  # 7 batches divide
        (13, 2, 4, False, 8),
        (13, 2, 2, True, 12),  # 6 full batches divide
        (13, 2, 4, True, 8),
        (5, 2, 4, False, 5),  # less than one step
        (13, 2, 1, False, 13),
    ],
)
def test_samples_of_whole_steps(samples, batch_size, accumulated, drop_last, expected):
    sampler = WholeStepSampler(
        range(samples), dict(type='DefaultSampler'), batch_size, accumulated, drop_last, seed=0
    )
    assert len(sampler) == len(list(sampler)) == len(set(sampler)) == expected
    first = set(sampler)
    sampler.set_epoch(1)
    assert (set(sampler) != first) is (expected < samples), 'the same samples are dropped each time'


def test_epochs_end_with_an_update(tmp_path):
    cfg = dict(type='WholeStepTrainLoop', max_epochs=3)
    runner, note = train(tmp_path, cfg, accumulated=3, samples=10)
    assert len(runner.train_dataloader) == 3  # of 5
    assert runner.iter == runner.max_iters == 9
    assert note.updates == [2, 5, 8]
    _, note = train(tmp_path, dict(type='EpochBasedTrainLoop', max_epochs=3), 3, samples=10)
    assert note.updates == [2, 5, 8, 11, 14]


def test_epoch_shorter_than_a_step_lowers_the_accumulation(tmp_path):
    runner, note = train(tmp_path, dict(type='WholeStepTrainLoop', max_epochs=2), 4, samples=6)
    assert note.updates == [2, 5]
    assert 'accumulative_counts: 3' in repr(runner.optim_wrapper)


LOOPS = {
    'whole steps': dict(type='WholeStepTrainLoop', max_epochs=4),
    'epochs': dict(type='EpochBasedTrainLoop', max_epochs=4),
    'iterations': dict(type='IterBasedTrainLoop', max_iters=20, val_interval=100),
}


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize(
    'optim_wrapper',
    [dict(), dict(type='ScaledOptimWrapper', clip_grad=dict(max_norm=0.1))],
    ids=['plain', 'scaled'],
)
def test_resumed_from_any_checkpoint_the_losses_are_equal(tmp_path, loop, optim_wrapper):
    runner, expected = train(tmp_path / 'whole', LOOPS[loop], accumulated=3, **optim_wrapper)
    checkpoints = sorted((tmp_path / 'whole').glob('*.pth'))
    assert len(checkpoints) == (20 if loop == 'iterations' else 4)
    held = [torch.load(path, weights_only=False).get('pending_gradients') for path in checkpoints]
    assert any(held) is (loop != 'whole steps')
    for gradients in filter(None, held):
        assert sorted(gradients) == ['linear.bias', 'linear.weight'], 'an unused one has none'
    for path in checkpoints[:: 3 if loop == 'iterations' else 1]:
        resumed, note = train(
            tmp_path / path.stem, LOOPS[loop], 3, checkpoint=str(path), **optim_wrapper
        )
        first = torch.load(path, weights_only=False)['meta']['iter']
        assert note.losses == {
            step: expected.losses[step] for step in range(first, len(expected.losses))
        }
        assert note.updates == [step for step in expected.updates if step >= first]
        for ours, theirs in zip(resumed.model.parameters(), runner.model.parameters(), strict=True):
            assert torch.equal(ours, theirs)


def test_checkpoint_of_longer_epochs_goes_on_at_the_same_epoch(tmp_path):
    """As of a training before the tail was dropped. MMEngine would count beyond the last iteration."""
    train(tmp_path / 'before', LOOPS['epochs'], accumulated=3)  # 5 iterations an epoch
    checkpoint = str(tmp_path / 'before' / 'epoch_2.pth')
    runner, note = train(tmp_path / 'after', LOOPS['whole steps'], 3, checkpoint=checkpoint)
    assert list(note.losses) == [6, 7, 8, 9, 10, 11]
    assert note.updates == [8, 11]
    assert runner.iter == 12


def restore(accumulated, iteration, model=None, resume=True, **checkpoint):
    """The gradients after a checkpoint with some was loaded at an iteration, and what was logged."""
    module = ToyModel()
    messages = []
    logger = SimpleNamespace(warning=messages.append, info=messages.append)
    wrapper = OptimWrapper(torch.optim.SGD(module.parameters(), 0.1), accumulated)
    wrapper.initialize_count_status(module, iteration, 20)
    runner = SimpleNamespace(
        model=model(module) if model else module,
        optim_wrapper=wrapper,
        logger=logger,
        _resume=resume,
    )
    hook = PendingGradientsHook()
    stored = {'linear.weight': torch.ones(1, 2), 'removed since': torch.ones(1)}
    hook.after_load_checkpoint(runner, dict(pending_gradients=stored, **checkpoint))
    hook.before_train(runner)
    return module.linear.weight.grad, messages


def test_gradients_are_restored_where_an_update_is_due_to_use_them():
    gradient, messages = restore(accumulated=3, iteration=4)
    assert gradient.tolist() == [[1, 1]]
    assert messages == [
        'The gradients that wait for the next update were in the checkpoint: none is lost.'
    ]
    assert restore(accumulated=3, iteration=4, resume=False) == (None, []), (
        'only weights are loaded'
    )


def test_gradients_of_another_accumulation(tmp_path):
    """They are scaled like those of the batches that follow, or said to be lost."""
    train(tmp_path, LOOPS['iterations'], accumulated=3)
    checkpoint = torch.load(tmp_path / 'iter_4.pth', weights_only=False)
    assert checkpoint['pending_loss_factor'] == 3
    gradient, messages = restore(accumulated=5, iteration=4, pending_loss_factor=3.0)
    assert gradient.tolist() == [[pytest.approx(0.6)] * 2]
    assert messages == [
        'The gradients that wait for the next update were means over 3 batches, and are rescaled to 5. The '
        'first update has not as many batches as the others.'
    ]
    gradient, messages = restore(accumulated=2, iteration=4, pending_loss_factor=3.0)
    assert gradient is None
    assert messages == [
        'The gradients that wait for the next update in the checkpoint are lost: with another accumulation '
        'no update is due here.'
    ]


@MODEL_WRAPPERS.register_module()
class ShardedModel(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_what_cannot_be_kept_is_said_once():
    gradient, messages = restore(accumulated=3, iteration=4, model=ShardedModel)
    assert gradient is None
    assert messages == [
        'Accumulated gradients are not kept in checkpoints of a ShardedModel: a training that resumes from a '
        'checkpoint between two updates will differ a little from an uninterrupted one.'
    ]
