"""Repeated augmentation: several augmented clips of the same video in one batch."""

from collections.abc import Iterator
from typing import Any

from mmengine.dataset import DefaultSampler
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler

from unireplknet_mm.errors import ArgumentError


@DATA_SAMPLERS.register_module()
class RepeatedSampler(Sampler):
    """Yields each index several times in a row: the clips of a video are of one batch, each drawn anew.

    Unlike mmpretrain's `RepeatAugSampler`, which puts them on different processes and shows a part of the
    data an epoch, every video is shown in every epoch, `num_repeats` times. A batch size that is a multiple
    of `num_repeats` keeps them together.

    Args:
        dataset: what is sampled from.
        num_repeats: how many clips of a video.
        shuffle, seed, round_up: as of MMEngine's `DefaultSampler`, which also deals the videos out to the
            processes.

    Raises:
        ArgumentError: fewer than one.
    """

    def __init__(
        self,
        dataset: Any,
        num_repeats: int = 2,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
    ):
        if num_repeats < 1:
            raise ArgumentError(f'num_repeats must be at least 1, not {num_repeats}')
        self.num_repeats = num_repeats
        self.sampler = DefaultSampler(dataset, shuffle, seed, round_up)

    def __iter__(self) -> Iterator[int]:
        for index in self.sampler:
            yield from [index] * self.num_repeats

    def __len__(self) -> int:
        return self.num_repeats * len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)
