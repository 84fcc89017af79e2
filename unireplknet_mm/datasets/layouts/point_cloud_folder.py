"""One's own point clouds: files in a folder a class, in a folder a split."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.clouds import CloudLayout, PlannedCloud
from unireplknet_mm.datasets.solids import CLOUD_NAMES

PLY_HEADER = (
    'ply\nformat binary_little_endian 1.0\nelement vertex {}\n'
    'property float x\nproperty float y\nproperty float z\nend_header\n'
)


def class_folders(num_classes: int) -> list[str]:
    unused = [f'unused_{label}' for label in range(len(CLOUD_NAMES), num_classes)]
    return [*CLOUD_NAMES[:num_classes], *unused]


def write_ply(path: Path, points: np.ndarray) -> None:
    """Points (n, 3) as a binary file."""
    header = PLY_HEADER.format(len(points)).encode('ascii')
    path.write_bytes(header + np.ascontiguousarray(points, '<f4').tobytes())


class PointCloudFolderLayout(CloudLayout):
    """Names of classes, and splits, are not those of the config."""

    name = 'point_cloud_folder'
    dataset_types = ('PointCloudFolder',)
    files = ('{train,val}/CLASS/*.ply',)
    defaults = dict(seed=0, num_classes=len(CLOUD_NAMES), points=1024)

    def write_clouds(
        self, root: Path, drawn: Iterator[PlannedCloud], parameters: dict[str, Any]
    ) -> None:
        folders = class_folders(parameters['num_classes'])
        for split in SPLITS:
            for folder in folders:
                (root / split / folder).mkdir(parents=True)
        for one in drawn:
            write_ply(root / one.split / folders[one.label] / f'{one.index:06d}.ply', one.points)

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        num_classes = parameters.get('num_classes', self.defaults['num_classes'])
        return dict(data_prefix=split, classes=class_folders(num_classes), inner='')


LAYOUT = PointCloudFolderLayout()
