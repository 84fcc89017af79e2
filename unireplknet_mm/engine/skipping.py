"""An iteration-based training goes on where it stopped without reading what it has seen.

MMEngine's loop takes the batches before that point once more and throws them away. 0.10.7 loads every
sample for it, 0.10.12 does so but for an infinite sampler without a batch sampler; late in a training of
160,000 iterations that is hours. Here only the indices are gone through, at the rate of the samplers.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, Sampler

from unireplknet_mm.engine.randomness import SeededSampler


@DATA_SAMPLERS.register_module()
class SeekableBatchSampler(Sampler):
    """Yields the batches of another batch sampler; a pass can begin further on.

    The other batch sampler is built anew for each pass: some keep samples that do not fill a batch yet,
    and those of a pass that was left early belong to no other.

    Args:
        sampler: what the batches are made of.
        batch_size: samples in a batch.
        batch_sampler: config of the other batch sampler, for instance `dict(type='AspectRatioBatchSampler')`.
    """

    def __init__(self, sampler: Sampler, batch_size: int, batch_sampler: dict):
        self.sampler = sampler
        self.batch_size = batch_size
        self.batch_sampler_cfg = batch_sampler
        self.first = 0
        self.length = len(self._build())

    def _build(self) -> Sampler:
        return DATA_SAMPLERS.build(
            self.batch_sampler_cfg,
            default_args=dict(sampler=self.sampler, batch_size=self.batch_size),
        )

    def __iter__(self) -> Iterator[list]:
        first, self.first = self.first, 0
        yield from itertools.islice(self._build(), first, None)

    def start_at(self, position: int) -> None:
        """Let the next pass, and only that, begin with the batch at this position."""
        self.first = position

    def __len__(self) -> int:
        return self.length


def is_seekable(dataloader: DataLoader) -> bool:
    """Whether a pass over a data loader can begin further on."""
    batches = dataloader.batch_sampler
    return isinstance(batches, SeekableBatchSampler) or (
        type(batches) is BatchSampler and isinstance(batches.sampler, SeededSampler)
    )


def seek(dataloader: DataLoader, batches: int) -> int:
    """Let the next pass over a data loader begin after so many batches of passes in a row.

    Args:
        dataloader: one that `is_seekable`.
        batches: counted from the first batch of the first pass.

    Returns:
        The number of the pass, which is set as the sampler's epoch. Where the batches end with a pass, it is
        that one, with nothing left.
    """
    batch_sampler = dataloader.batch_sampler
    for epoch in itertools.count():
        batch_sampler.sampler.set_epoch(epoch)
        passed = sum(1 for _ in itertools.islice(batch_sampler, batches))
        if passed in (0, batches):
            break
        batches -= passed
    if isinstance(batch_sampler, SeekableBatchSampler):
        batch_sampler.start_at(passed)
    else:
        batch_sampler.sampler.start_at(passed * batch_sampler.batch_size)
    return epoch


class ResumedBatches:
    """The batches of an endless training from one iteration on, in the place of MMEngine's iterator.

    MMEngine's loop first passes over those that were seen, by `skip_iter` (0.10.12) or by taking so many of
    them (0.10.7). It does not look at those, so they are None.

    Args:
        dataloader: one that `is_seekable`.
        seen: how many batches were.
        one_by_one: whether the loop takes them, as 0.10.7 does.
    """

    def __init__(self, dataloader: DataLoader, seen: int, one_by_one: bool):
        self.dataloader = dataloader
        self.seen = seen
        self.to_skip = seen if one_by_one else 0
        self.epoch = 0
        self.batches: Iterator | None = None

    def __iter__(self) -> Iterator:
        return self

    def skip_iter(self, num_iters: int) -> None:
        """Nothing to do: the first batch that is loaded is the one after those seen."""

    def __next__(self) -> Any:
        if self.to_skip > 0:
            self.to_skip -= 1
            return None
        if self.batches is None:
            self.epoch = seek(self.dataloader, self.seen)
            self.batches = iter(self.dataloader)
        try:
            return next(self.batches)
        except StopIteration:
            self.epoch += 1
            self.dataloader.batch_sampler.sampler.set_epoch(self.epoch)
            self.batches = iter(self.dataloader)
            return next(self.batches)


@HOOKS.register_module()
class SkipSeenBatchesHook(Hook):
    """Lets a resumed iteration-based training start at its place among the batches."""

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        iterator = getattr(loop, 'dataloader_iterator', None)
        if iterator is not None and runner.iter > 0 and is_seekable(loop.dataloader):
            one_by_one = not hasattr(iterator, 'skip_iter')
            loop.dataloader_iterator = ResumedBatches(loop.dataloader, runner.iter, one_by_one)
