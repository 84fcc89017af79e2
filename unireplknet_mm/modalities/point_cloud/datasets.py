"""Data sets of labelled point clouds: ModelNet-40, ScanObjectNN, and a folder a class of one's own files."""

import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.registry import DATASETS
from mmpretrain.datasets import BaseDataset

from unireplknet_mm.datasets.hdf5_files import import_h5py
from unireplknet_mm.errors import ArgumentError, MissingFileError
from unireplknet_mm.modalities.folders import classes_of, not_hidden, warn_of_empty_classes
from unireplknet_mm.modalities.point_cloud.files import SUFFIXES, PointCloudError, turn_z_up
from unireplknet_mm.modalities.point_cloud.pickles import read_arrays

MODELNET_CLASSES = (
    *('airplane', 'bathtub', 'bed', 'bench', 'bookshelf', 'bottle', 'bowl', 'car', 'chair', 'cone'),
    *('cup', 'curtain', 'desk', 'door', 'dresser', 'flower_pot', 'glass_box', 'guitar', 'keyboard'),
    *('lamp', 'laptop', 'mantel', 'monitor', 'night_stand', 'person', 'piano', 'plant', 'radio'),
    *('range_hood', 'sink', 'sofa', 'stairs', 'stool', 'table', 'tent', 'toilet', 'tv_stand'),
    *('vase', 'wardrobe', 'xbox'),
)
# In the order of the release's labels; the published code names them in that of the alphabet.
SCAN_CLASSES = (
    *('bag', 'bin', 'box', 'cabinet', 'chair', 'desk', 'display', 'door', 'shelf', 'table', 'bed'),
    *('pillow', 'sink', 'sofa', 'toilet'),
)


class PointCloudDataset(BaseDataset):
    """What the data sets share: `load_data_list` gives a dict a cloud, with its `gt_label`.

    It has a `cloud_path`, or its points are `self.clouds[index]`, which are kept apart from the list so that
    they are in memory once.
    """

    clouds: Sequence[np.ndarray] | None = None

    def __init__(self, data_root: str = '', pipeline: Sequence = (), **named: Any):
        super().__init__(
            **{**dict(ann_file=''), **named}, data_root=str(data_root), pipeline=pipeline
        )

    def get_data_info(self, idx: int) -> dict[str, Any]:
        info = super().get_data_info(idx)
        if self.clouds is not None:
            info['points'] = self.clouds[info['cloud_index']]
        return info

    def extra_repr(self) -> list[str]:
        return [f'Data root: \t{self.data_root}']

    def _from_arrays(self, path: Path, clouds: Any, labels: Any) -> list[dict[str, Any]]:
        """Checks what a file holds, keeps its clouds, z up, and lists them."""
        for what, values in dict(clouds=clouds, labels=labels).items():
            if not isinstance(values, list | tuple | np.ndarray) or getattr(values, 'ndim', 1) == 0:
                raise PointCloudError(f'{path} has no list of {what}, but {reprlib.repr(values)}')
        labels = [_as_label(label, path) for label in labels]
        if not labels or len(clouds) != len(labels):
            raise PointCloudError(f'{path} has {len(clouds)} clouds and {len(labels)} labels')
        classes = len(self.CLASSES)
        if outside := [label for label in labels if not 0 <= label < classes]:
            raise PointCloudError(f'{path} has the label {outside[0]} of {classes} classes')
        kept = []
        for index, cloud in enumerate(clouds):
            cloud = _as_array(cloud, path)
            if cloud.ndim != 2 or cloud.shape[1] < 3 or cloud.dtype.kind not in 'fiu':
                raise PointCloudError(
                    f'{path}: cloud {index} is of shape {cloud.shape}, {cloud.dtype}; rows of 3 or more '
                    'numbers are wanted'
                )
            kept.append(turn_z_up(cloud))
        self.clouds = kept
        return [
            dict(cloud_index=index, cloud_path=f'{path}[{index}]', gt_label=label)
            for index, label in enumerate(labels)
        ]


def _as_array(value: Any, path: Path) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise PointCloudError(f'{path} holds a list that is no array: {error}') from None


def _as_label(label: Any, path: Path) -> int:
    value = _as_array(label, path).reshape(-1)
    if value.size != 1 or value.dtype.kind not in 'iu':
        raise PointCloudError(
            f'{path} has the label {reprlib.repr(label)}, which is no whole number'
        )
    return int(value[0])


def _require(path: Path, what: str) -> Path:
    if not path.is_file():
        raise MissingFileError(f'{path}, {what}, does not exist')
    return path


@DATASETS.register_module()
class ModelNet(PointCloudDataset):
    """ModelNet-40 in one of its two releases as points, y up, which are turned so that z is.

    - `release='dat'`: `modelnet40_{train,test}_8192pts_fps.dat`, a pickle of a list of (8192, 6) arrays and
      one of labels, as Point-BERT and P2P prepare it. It is read without running code from it. The points
      stand in the order in which farthest-point sampling took them.
    - `release='txt'`: `modelnet40_{train,test}.txt`, a name a line, and `CLASS/CLASS_0001.txt`, 10,000 lines
      of six numbers between commas (`modelnet40_normal_resampled`).

    Normals are left out.

    Args:
        data_root: of the release.
        subset: 'train' (9,843 clouds) or 'test' (2,468).
        release: 'dat' or 'txt'.
        named: what mmpretrain's `BaseDataset` takes: `pipeline`, `test_mode`, `indices`, ...

    Raises:
        ArgumentError: another subset or release.
        MissingFileError: a file of the release is not there.
        PointCloudError: one is not what it should be.
    """

    METAINFO = dict(classes=MODELNET_CLASSES)

    def __init__(self, data_root: str, subset: str = 'train', release: str = 'dat', **named: Any):
        _check_choice('subset', subset, ('train', 'test'))
        _check_choice('release', release, ('dat', 'txt'))
        self.subset = subset
        self.release = release
        super().__init__(data_root, **named)

    def load_data_list(self) -> list[dict[str, Any]]:
        root = Path(self.data_root)
        if self.release == 'dat':
            path = root / f'modelnet40_{self.subset}_8192pts_fps.dat'
            content = read_arrays(_require(path, "a file of ModelNet-40's .dat release"))
            if not (isinstance(content, list | tuple) and len(content) == 2):
                raise PointCloudError(f'{path} holds no pair of clouds and labels')
            return self._from_arrays(path, *content)
        names = root / f'modelnet40_{self.subset}.txt'
        lines = (
            _require(names, "a file of ModelNet-40's .txt release").read_text('utf-8-sig').split()
        )
        samples = []
        for name in lines:
            label = name.rpartition('_')[0]
            if label not in self.class_to_idx:
                raise PointCloudError(f'{names}: {name!r} is of no class of ModelNet-40')
            path = root / label / f'{name}.txt'
            samples.append(
                dict(cloud_path=str(path), gt_label=self.class_to_idx[label], y_is_up=True)
            )
        if not samples:
            raise PointCloudError(f'{names}: there is no name in this list')
        return samples


@DATASETS.register_module()
class ScanObjectNN(PointCloudDataset):
    """ScanObjectNN's HDF5 files, 2,048 points a scan, y up, which are turned so that z is.

    Args:
        data_root: the folder of `main_split/` and `main_split_nobg/` (`h5_files` of the release).
        subset: 'train' or 'test'.
        variant: 'pb_t50_rs', perturbed objects, the hardest, which papers report; 'obj_bg', objects with
            background; 'obj_only', without.
        named: what mmpretrain's `BaseDataset` takes.

    Raises:
        ArgumentError: another subset or variant.
        MissingFileError: the file is not there.
        MissingPackageError: h5py is not installed.
        PointCloudError: the file is not what it should be.
    """

    METAINFO = dict(classes=SCAN_CLASSES)
    FILES = {
        'pb_t50_rs': 'main_split/{}_objectdataset_augmentedrot_scale75.h5',
        'obj_bg': 'main_split/{}_objectdataset.h5',
        'obj_only': 'main_split_nobg/{}_objectdataset.h5',
    }

    def __init__(
        self, data_root: str, subset: str = 'train', variant: str = 'pb_t50_rs', **named: Any
    ):
        _check_choice('subset', subset, ('train', 'test'))
        _check_choice('variant', variant, tuple(self.FILES))
        self.subset = subset
        self.variant = variant
        super().__init__(data_root, **named)

    def load_data_list(self) -> list[dict[str, Any]]:
        name = self.FILES[self.variant].format(dict(train='training').get(self.subset, self.subset))
        path = _require(Path(self.data_root, name), 'a file of ScanObjectNN')
        h5py = import_h5py()
        try:
            with h5py.File(path) as file:
                clouds, labels = file['data'][()], file['label'][()]
        except (OSError, KeyError, TypeError) as error:
            raise PointCloudError(
                f'{path} is no HDF5 file with data and label: {" ".join(str(error).split())}'
            ) from None
        return self._from_arrays(path, clouds, labels)


@DATASETS.register_module()
class PointCloudFolder(PointCloudDataset):
    """Files in a folder a class, of the formats of `files.py`; the classes are sorted by name.

    A class without a cloud is a warning.

    Args:
        data_root: the folder.
        data_prefix: of it, the folder in which those of the classes are, such as 'train'.
        classes: their names, in the order of the labels; every folder must be one of them. State them where
            training and validation may lack some.
        inner: the folder in that of a class, where a split is there: 'train' for CLASS/train/*.off, as
            Princeton's release of ModelNet has them.
        named: what mmpretrain's `BaseDataset` takes.

    Raises:
        MissingFileError: there is no such folder.
        ArgumentError: there is a folder in it that is no class.
        PointCloudError: there is no cloud in it.
    """

    def __init__(
        self,
        data_root: str,
        data_prefix: str = '',
        classes: Sequence[str] | None = None,
        inner: str = '',
        **named: Any,
    ):
        self.inner = inner
        super().__init__(data_root, data_prefix=data_prefix, classes=classes, **named)

    def load_data_list(self) -> list[dict[str, Any]]:
        root = Path(self.img_prefix or self.data_root)
        if not root.is_dir():
            raise MissingFileError(f'{root}, the folder of point clouds, does not exist')
        classes = self._metainfo['classes'] = classes_of(root, self.CLASSES)
        samples = [
            dict(cloud_path=str(path), gt_label=label)
            for label, name in enumerate(classes)
            for path in _clouds_in(root / name / self.inner)
        ]
        if not samples:
            inner = f'{self.inner}/' if self.inner else ''
            raise PointCloudError(
                f'{root}: there is no CLASS/{inner}NAME{{{",".join(SUFFIXES)}}} in this folder'
            )
        warn_of_empty_classes(root, classes, (sample['gt_label'] for sample in samples), 'cloud')
        return samples


def _check_choice(name: str, value: str, values: tuple[str, ...]) -> None:
    if value not in values:
        raise ArgumentError(f'{name} must be {", ".join(values)}, got {value!r}')


def _clouds_in(folder: Path) -> Iterator[Path]:
    for path in sorted(not_hidden(folder)) if folder.is_dir() else ():
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield path
