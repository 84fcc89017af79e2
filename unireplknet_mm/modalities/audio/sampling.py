"""Drawing recordings so that rare labels are heard as often as common ones."""

import itertools
from collections.abc import Iterator

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import Sampler


@DATA_SAMPLERS.register_module()
class BalancedSampler(Sampler):
    """Draws with replacement, a recording as often as its labels are rare (AST's and PSLA's sampling).

    The weight of a recording is the sum over its labels of 1 / (recordings with that label). An epoch has as
    many draws as the data set has recordings, rounded up to the number of processes.

    Args:
        dataset: that says the labels of a sample (`get_cat_ids`).
        seed: of the draws; default: one that all processes share.
    """

    def __init__(self, dataset: BaseDataset, seed: int | None = None):
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        labels = [dataset.get_cat_ids(index) for index in range(len(dataset))]
        self.weights = balanced_weights(labels)
        self.num_samples = -(-len(labels) // self.world_size)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        count = self.num_samples * self.world_size
        drawn = generator.choice(len(self.weights), count, p=self.weights)
        return (int(index) for index in itertools.islice(drawn, self.rank, None, self.world_size))

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def balanced_weights(labels: list[list[int]]) -> np.ndarray:
    """The probability of each recording, by the labels of all."""
    counts = np.bincount([label for of_one in labels for label in of_one])
    weights = np.array([sum(1 / counts[label] for label in of_one) for of_one in labels])
    return weights / weights.sum()
