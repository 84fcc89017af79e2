"""Random numbers that do not depend on the past: a resumed training goes on as if never stopped.

MMEngine stores no random state, and the states that matter live in many places: every process of a
distributed run, every worker of its data loader. Instead of storing them, they are made a function
of the position in the training:

- `SeededSampler` attaches to every sample index its position (rank, epoch, place in the epoch), and
  `SeededDataset` seeds the random generators from it before it loads and augments the sample. The
  sample is then the same whatever worker loads it, and however many there are.
- `SeededIterationHook` seeds them from (rank, iteration) before each training iteration, for drop
  path, dropout, mixup and the sampling of proposals.

What follows: a training resumed from a checkpoint that was written at the end of an epoch
(epoch-based loop), or at any iteration (iteration-based loop), sees the same samples, augmented in
the same way, and drops the same paths. Its losses are those of the uninterrupted run, up to what
the device itself does not compute reproducibly (on CPU: equal bits). `engine/skipping.py` finds its
place among the samples without reading those before it, `engine/accumulation.py` keeps gradients that
wait for their update. Not covered: a checkpoint that an epoch-based training wrote within an epoch
(MMEngine starts the epoch again); another number of processes; samplers whose indices are not integers.
"""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank, sync_random_seed
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS
from mmengine.runner import Runner
from torch.utils.data import Sampler

# Keeps the random streams of the samples apart from those of the iterations.
SAMPLE_STREAM, ITERATION_STREAM = 0, 1


def seed_generators(key: tuple[int, ...], devices: bool) -> None:
    """Seed Python's, NumPy's and torch's generators with numbers derived from all of `key`.

    With `devices`, the generators of the GPUs too.
    """
    words = np.random.SeedSequence(key).generate_state(4, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(words[1:2].view(np.uint32))
    if devices:
        torch.manual_seed(int(words[2] >> 1))
    else:
        torch.default_generator.manual_seed(int(words[2] >> 1))


class SeededIndex(int):
    """A sample index that carries the key of its random numbers. An int in every other respect."""

    key: tuple[int, ...]

    def __new__(cls, index: int, key: tuple[int, ...]) -> 'SeededIndex':
        seeded = super().__new__(cls, index)
        seeded.key = key
        return seeded

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:
        return int(self), self.key


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Yields the indices of another sampler as `SeededIndex`.

    The other sampler is built anew for each pass, so that its order, too, depends on seed and epoch
    only. Indices that are no integers pass through unseeded.

    Args:
        dataset: what the sampler samples from.
        sampler: config of the other sampler, for instance `dict(type='InfiniteSampler')`.
        seed: the same number on all ranks. Default: one that they agree upon.
    """

    def __init__(self, dataset: Any, sampler: dict, seed: int | None = None):
        self.dataset = dataset
        self.sampler_cfg = sampler
        self.seed = sync_random_seed() if seed is None else seed
        self.rank = get_rank()
        self.epoch = 0
        self.first = 0
        self.length = len(self._build())

    def _build(self) -> Sampler:
        sampler = DATA_SAMPLERS.build(
            self.sampler_cfg, default_args=dict(dataset=self.dataset, seed=self.seed)
        )
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(self.epoch)
        return sampler

    def __iter__(self) -> Iterator[Any]:
        first, self.first = self.first, 0
        for position, index in itertools.islice(enumerate(self._build()), first, None):
            if isinstance(index, int | np.integer):
                key = (SAMPLE_STREAM, self.seed, self.rank, self.epoch, position)
                yield SeededIndex(index, key)
            else:
                yield index

    def start_at(self, position: int) -> None:
        """Let the next pass, and only that, begin with the sample at this position."""
        self.first = position

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


@DATASETS.register_module()
class SeededDataset:
    """A data set whose random augmentations depend on the `SeededIndex` alone.

    Everything but the loading of a sample is the wrapped data set's. The state of the random
    generators is put back afterwards, so loading in the main process disturbs nothing.

    Args:
        dataset: the data set or its config.
    """

    def __init__(self, dataset: Any):
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not set yet: unpickling
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == 'dataset':
            super().__setattr__(name, value)
        else:  # a hook that switches the pipeline during training means the wrapped data set
            setattr(self.dataset, name, value)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, SeededIndex):
            return self.dataset[index]
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        seed_generators(index.key, devices=False)
        try:
            return self.dataset[int(index)]
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


@HOOKS.register_module()
class SeededIterationHook(Hook):
    """Seeds the random generators before every training iteration from seed, rank and iteration."""

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_generators((ITERATION_STREAM, runner.seed, get_rank(), runner.iter), devices=True)
