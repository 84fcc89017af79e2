"""A resumed iteration-based training loads what it trains on, and nothing that it has seen.

The tests hold for MMEngine 0.10.7, which takes the seen batches one by one, and for 0.10.12, which skips.
"""

import multiprocessing
import os
import random

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import BatchSampler

from unireplknet_mm.engine.skipping import ResumedBatches
from unireplknet_mm.launch import make_resumable

SIZE, BATCH_SIZE = 13, 2
loaded = multiprocessing.Value('i', 0)


@DATASETS.register_module()
class CountedDataset:
    """Sample i is a noisy i; every loading is counted, in whatever process."""

    metainfo = dict()

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        with loaded.get_lock():
            loaded.value += 1
        return dict(samples=torch.tensor([index, random.random()]))


@DATA_SAMPLERS.register_module()
class OddAndEvenBatchSampler(BatchSampler):
    """Batches of odd or of even numbers, as mmdet makes them of upright or wide images."""

    def __init__(self, sampler, batch_size):
        super().__init__(sampler, batch_size, drop_last=False)
        self.waiting = [[], []]

    def __iter__(self):
        for index in self.sampler:
            waiting = self.waiting[index % 2]
            waiting.append(index)
            if len(waiting) == self.batch_size:
                yield [*waiting]
                waiting.clear()
        rest, self.waiting = self.waiting[0] + self.waiting[1], [[], []]
        for start in range(0, len(rest), self.batch_size):
            yield rest[start : start + self.batch_size]


class NoisyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, samples, mode='loss'):
        dropped = nn.functional.dropout(samples / SIZE, training=self.training)
        return dict(loss=self.linear(dropped).square().mean())


@HOOKS.register_module()
class RecordHook(Hook):
    """Notes the batch and the loss of every iteration."""

    def __init__(self):
        self.record = {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.record[runner.iter] = data_batch['samples'].tolist(), outputs['loss'].item()


def train(work_dir, sampler, batch_sampler, workers, checkpoint=None):
    """The record of the iterations, and how many samples were loaded for them."""
    cfg = ConfigDict(
        train_dataloader=dict(
            batch_size=BATCH_SIZE,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type=sampler, shuffle=True),
            dataset=dict(type='CountedDataset'),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=46, val_interval=100),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        custom_hooks=[dict(type='RecordHook')],
    )
    if batch_sampler:
        cfg.train_dataloader.batch_sampler = dict(type=batch_sampler)
    make_resumable(cfg)
    loaded.value = 0
    torch.manual_seed(0)
    runner = Runner(
        model=dict(type=NoisyModel),
        work_dir=str(work_dir),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=40, by_epoch=False)),
        default_scope='mmengine',
        experiment_name=f'skipping_{os.urandom(4).hex()}',
        randomness=dict(seed=1),
        load_from=checkpoint,
        resume=checkpoint is not None,
        log_level='ERROR',
        **cfg,
    )
    runner.train()
    recorder = next(hook for hook in runner.hooks if isinstance(hook, RecordHook))
    assert isinstance(runner.train_loop.dataloader_iterator, ResumedBatches) is runner._resume
    return recorder.record, loaded.value


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('batch_sampler', [None, 'OddAndEvenBatchSampler'])
@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
def test_seen_batches_are_not_loaded(tmp_path, monkeypatch, sampler, batch_sampler, workers):
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # MMEngine waits between epochs
    arguments = sampler, batch_sampler, workers
    expected, count_of_all = train(tmp_path / 'whole', *arguments)
    after, count = train(tmp_path / 'resumed', *arguments, str(tmp_path / 'whole' / 'iter_40.pth'))

    assert len({str(batch) for batch, _ in expected.values()}) == 46
    assert after == {iteration: expected[iteration] for iteration in range(40, 46)}
    # Workers load two batches each ahead; those of MMEngine 0.10.7 do so before it resumes, too.
    ahead = 2 * workers * 2 * BATCH_SIZE
    assert count <= 6 * BATCH_SIZE + ahead < count_of_all - 6 * BATCH_SIZE
