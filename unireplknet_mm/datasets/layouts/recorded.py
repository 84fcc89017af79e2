"""What the layouts share whose demo data are computed sounds."""

import argparse
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unireplknet_mm.configuration import classes_of_heads
from unireplknet_mm.datasets.layouts.base import SPLITS, Layout, Progress
from unireplknet_mm.errors import ArgumentError


@dataclass(frozen=True)
class PlannedRecording:
    """Number `index` of a split, from 0, with the random numbers that it is drawn from."""

    split: str
    index: int
    rng: np.random.Generator


class RecordedLayout(Layout):
    """Demo data of computed sounds (`sounds.py`).

    Recording i of a split depends on the seed and on i alone. `num_classes` is how many there are.
    """

    samples = 'recordings'

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        for name, default in self.defaults.items():
            option = f'--{name.replace("_", "-")}'
            parser.add_argument(option, type=int, metavar='N', help=f'default: {default}')

    def check(self, parameters: dict[str, Any]) -> None:
        if parameters['seed'] < 0:
            raise ArgumentError(f'seed must not be negative, not {parameters["seed"]}')
        if parameters.get('num_classes', 1) < 1:
            raise ArgumentError(f'num_classes must be at least 1, not {parameters["num_classes"]}')

    def check_sources(self) -> None:
        """There are none: sounds are computed."""

    def write_demo(self, root: Path, parameters: dict[str, Any], progress: Progress) -> dict:
        self.write_recordings(root, self._plan(parameters, progress), parameters)
        return {}

    @abstractmethod
    def write_recordings(
        self, root: Path, planned: Iterable[PlannedRecording], parameters: dict[str, Any]
    ) -> None:
        """Draw and write the recordings that are planned, and their lists."""

    def _plan(self, parameters: dict[str, Any], progress: Progress) -> Iterator[PlannedRecording]:
        counts = dict(train=parameters['images'], val=parameters['val_images'])
        places = [(split, index) for split in SPLITS for index in range(counts[split])]
        for split, index in progress(places):
            rng = np.random.default_rng([parameters['seed'], SPLITS.index(split), index])
            yield PlannedRecording(split, index, rng)

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        if 'num_classes' not in self.defaults:
            return {}
        return dict(num_classes=min(classes_of_heads(model), default=self.defaults['num_classes']))
