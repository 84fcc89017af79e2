"""ModelNet-40 as points: the `.dat` files of Point-BERT and P2P, and the `.txt` release."""

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.clouds import CloudLayout, PlannedCloud, y_up
from unireplknet_mm.errors import ArgumentError

SUBSETS = dict(train='train', val='test')
RELEASES = ('dat', 'txt')
# Of ModelNet-40, the classes that the demo data stand under; it has no digits.
CLASSES = (
    *('airplane', 'bathtub', 'bed', 'bench', 'bookshelf', 'bottle', 'bowl', 'car', 'chair', 'cone'),
    *('cup', 'curtain', 'desk', 'door', 'dresser', 'flower_pot', 'glass_box', 'guitar'),
)


class ModelNetLayout(CloudLayout):
    """The demo data have the classes and files of ModelNet-40, with drawn clouds under its first classes."""

    name = 'modelnet'
    dataset_types = ('ModelNet',)
    files = ('modelnet40_{train,test}_8192pts_fps.dat', 'modelnet40_{train,test}.txt')
    title = 'ModelNet-40'
    source = 'https://modelnet.cs.princeton.edu'
    defaults = dict(seed=0, num_classes=40, points=8192, release='dat')

    def where_to_get(self, root: str) -> list[str]:
        return [
            'ModelNet-40 as points: the .dat files as Point-BERT and P2P prepare them '
            '(https://github.com/Julie-tang00/Point-BERT, DATASET.md), or '
            'https://shapenet.cs.stanford.edu/media/modelnet40_normal_resampled.zip with release="txt"',
            f'Expected are {root}/modelnet40_{{train,test}}_8192pts_fps.dat, or '
            f'{root}/modelnet40_{{train,test}}.txt and {root}/CLASS/CLASS_0001.txt',
            f'A copy elsewhere can be linked: ln -s /path/to/it {root}',
        ]

    def check(self, parameters: dict[str, Any]) -> None:
        super().check(parameters)
        if parameters['num_classes'] != 40:
            raise ArgumentError(
                f'num_classes={parameters["num_classes"]} does not fit the layout modelnet: it has 40'
            )
        if parameters['release'] not in RELEASES:
            raise ArgumentError(
                f'release must be {" or ".join(RELEASES)}, not {parameters["release"]!r}'
            )

    def write_clouds(
        self, root: Path, drawn: Iterator[PlannedCloud], parameters: dict[str, Any]
    ) -> None:
        if parameters['release'] == 'txt':
            self._write_texts(root, drawn)
            return
        clouds = {split: ([], []) for split in SPLITS}
        for one in drawn:
            clouds[one.split][0].append(_with_normals(one.points))
            clouds[one.split][1].append(np.array([one.label]))
        for split, (points, labels) in clouds.items():
            path = root / f'modelnet40_{SUBSETS[split]}_8192pts_fps.dat'
            path.write_bytes(pickle.dumps([points, labels], protocol=4))

    def _write_texts(self, root: Path, drawn: Iterator[PlannedCloud]) -> None:
        names = {split: [] for split in SPLITS}
        numbers = dict.fromkeys(CLASSES, 0)
        for one in drawn:
            label = CLASSES[one.label]
            numbers[label] += 1
            name = f'{label}_{numbers[label]:04d}'
            (root / label).mkdir(exist_ok=True)
            np.savetxt(root / label / f'{name}.txt', _with_normals(one.points), '%.6f', ',')
            names[one.split].append(f'{name}\n')
        for split, lines in names.items():
            (root / f'modelnet40_{SUBSETS[split]}.txt').write_text(''.join(lines), 'utf-8')

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        releases = {dataset.get('release', 'dat') for dataset in datasets}
        if len(releases) > 1:
            raise ArgumentError(
                'the data sets of the config differ in release; the demo data of all of them are the same'
            )
        return dict(super().parameters_for(model, datasets), release=releases.pop())

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(subset=SUBSETS[split], ann_file='')


def _with_normals(points: np.ndarray) -> np.ndarray:
    """(n, 6) float32 with y up, the normals being 0: nobody reads them."""
    return np.concatenate([y_up(points), np.zeros_like(points)], 1)


LAYOUT = ModelNetLayout()
