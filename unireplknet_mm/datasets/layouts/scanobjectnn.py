"""ScanObjectNN: two HDF5 files a variant."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unireplknet_mm.datasets.hdf5_files import import_h5py
from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.clouds import CloudLayout, PlannedCloud, y_up
from unireplknet_mm.errors import ArgumentError

SUBSETS = dict(train='training', val='test')
FILES = {
    'pb_t50_rs': 'main_split/{}_objectdataset_augmentedrot_scale75.h5',
    'obj_bg': 'main_split/{}_objectdataset.h5',
    'obj_only': 'main_split_nobg/{}_objectdataset.h5',
}


class ScanObjectNNLayout(CloudLayout):
    """The demo data have the files of all three variants, with the same clouds."""

    name = 'scanobjectnn'
    dataset_types = ('ScanObjectNN',)
    files = tuple(file.format('{training,test}') for file in FILES.values())
    title = 'ScanObjectNN'
    source = 'https://hkust-vgd.github.io/scanobjectnn'
    defaults = dict(seed=0, num_classes=15, points=2048)

    def check(self, parameters: dict[str, Any]) -> None:
        super().check(parameters)
        if parameters['num_classes'] != 15:
            raise ArgumentError(
                f'num_classes={parameters["num_classes"]} does not fit the layout scanobjectnn: it has 15'
            )

    def check_sources(self) -> None:
        super().check_sources()
        import_h5py()

    def write_clouds(
        self, root: Path, drawn: Iterator[PlannedCloud], parameters: dict[str, Any]
    ) -> None:
        h5py = import_h5py()
        clouds = {split: ([], []) for split in SPLITS}
        for one in drawn:
            clouds[one.split][0].append(y_up(one.points))
            clouds[one.split][1].append(one.label)
        for split, (points, labels) in clouds.items():
            for file in FILES.values():
                path = root / file.format(SUBSETS[split])
                path.parent.mkdir(exist_ok=True)
                with h5py.File(path, 'w') as content:
                    content['data'] = np.stack(points)
                    content['label'] = np.array(labels, np.int32)

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(subset='train' if split == 'train' else 'test', ann_file='')


LAYOUT = ScanObjectNNLayout()
