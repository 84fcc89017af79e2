"""What the layouts share whose demo data are drawn point clouds."""

import argparse
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unireplknet_mm.configuration import classes_of_heads
from unireplknet_mm.datasets.drawing import load_scans
from unireplknet_mm.datasets.layouts.base import SPLITS, Layout, Progress
from unireplknet_mm.datasets.solids import CLOUD_NAMES, draw_cloud
from unireplknet_mm.errors import ArgumentError

FEWEST_POINTS = 8
FROM_Z_UP = (
    (1, 2, 0),
    (-1, 1, -1),
)  # axes and signs of files with y up; what reads them turns it back


@dataclass(frozen=True)
class PlannedCloud:
    """Number `index` of a split, from 0: its label and its points, (n, 3) float32, z up."""

    split: str
    index: int
    label: int
    points: np.ndarray


def y_up(points: np.ndarray) -> np.ndarray:
    """Points, (n, 3), with z up as a file has them whose y is up."""
    axes, signs = FROM_Z_UP
    return points[:, axes] * np.float32(signs)


class CloudLayout(Layout):
    """Demo data: handwritten digits as plates and solids (`datasets/solids.py`).

    Cloud i of a split depends on the seed and on i alone; its class is i modulo `num_classes`. Classes beyond
    those that can be drawn stay without a cloud.
    """

    samples = 'point clouds'

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        for name, default in self.defaults.items():
            option = f'--{name.replace("_", "-")}'
            if isinstance(default, str):
                parser.add_argument(option, help=f'default: {default}')
            else:
                parser.add_argument(option, type=int, metavar='N', help=f'default: {default}')

    def check(self, parameters: dict[str, Any]) -> None:
        if parameters['seed'] < 0:
            raise ArgumentError(f'seed must not be negative, not {parameters["seed"]}')
        if parameters['num_classes'] < 1:
            raise ArgumentError(f'num_classes must be at least 1, not {parameters["num_classes"]}')
        if parameters['points'] < FEWEST_POINTS:
            raise ArgumentError(
                f'points must be at least {FEWEST_POINTS}, not {parameters["points"]}'
            )

    def check_sources(self) -> None:
        for split in SPLITS:
            load_scans(split)

    def write_demo(self, root: Path, parameters: dict[str, Any], progress: Progress) -> dict:
        used = {split: set() for split in SPLITS}
        self.write_clouds(root, self._draw(parameters, used, progress), parameters)
        return {split: dict(scans=sorted(scans)) for split, scans in used.items()}

    @abstractmethod
    def write_clouds(
        self, root: Path, drawn: Iterator[PlannedCloud], parameters: dict[str, Any]
    ) -> None:
        """Write clouds, drawn one by one as they are taken, and their lists to `root`."""

    def _draw(
        self, parameters: dict[str, Any], used: dict[str, set], progress: Progress
    ) -> Iterator[PlannedCloud]:
        counts = dict(train=parameters['images'], val=parameters['val_images'])
        names = CLOUD_NAMES[: parameters['num_classes']]
        planned = [(split, index) for split in SPLITS for index in range(counts[split])]
        for split, index in progress(planned):
            label = index % len(names)
            rng = np.random.default_rng([parameters['seed'], SPLITS.index(split), index])
            drawn = draw_cloud(rng, split, names[label], parameters['points'])
            if drawn.scan is not None:
                used[split].add(drawn.scan)
            yield PlannedCloud(split, index, label, drawn.points)

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        return dict(num_classes=min(classes_of_heads(model), default=self.defaults['num_classes']))
