"""The demo data of point clouds are read by the data sets, and by the configs that name them."""

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import load_config, read_tree
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.utils import import_modules_from_strings

from unireplknet_mm.datasets import make_demo_data, use_demo_data
from unireplknet_mm.datasets.demo import MANIFEST
from unireplknet_mm.datasets.layouts import LAYOUTS
from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.solids import CLOUD_NAMES, draw_cloud
from unireplknet_mm.errors import ArgumentError, MissingPackageError, UserError
from unireplknet_mm.launch import check_data
from unireplknet_mm.modalities.point_cloud import ModelNet, PointCloudFolder, ScanObjectNN
from unireplknet_mm.modalities.point_cloud.datasets import MODELNET_CLASSES, SCAN_CLASSES
from unireplknet_mm.modalities.point_cloud.files import centre

ROOT = Path(__file__).resolve().parents[3]
SIZES = dict(images=20, val_images=5, points=60)
FOLDERS = {
    'point_cloud_folder': dict(),
    'modelnet': dict(),
    'modelnet_txt': dict(release='txt'),
    'scanobjectnn': dict(),
}


@pytest.fixture(scope='module')
def written(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp('clouds')
    return {
        name: make_demo_data(name.removesuffix('_txt'), root / name, **SIZES, **more)
        for name, more in FOLDERS.items()
    }


def open_split(name: str, root: Path, split: str, **settings):
    subset = 'train' if split == 'train' else 'test'
    pipeline = [dict(type='LoadPointCloud')]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        if name == 'point_cloud_folder':
            return PointCloudFolder(str(root), data_prefix=split, pipeline=pipeline)
        if name == 'scanobjectnn':
            return ScanObjectNN(str(root), subset=subset, pipeline=pipeline, **settings)
        release = 'txt' if name.endswith('txt') else 'dat'
        return ModelNet(str(root), subset=subset, release=release, pipeline=pipeline)


@pytest.mark.parametrize('name', FOLDERS)
@pytest.mark.parametrize('split', SPLITS)
def test_files_are_the_drawn_clouds(written, name, split):
    """Labels, coordinates, centred, and their directions; in the order of the drawing, or of the classes."""
    dataset = open_split(name, written[name], split)
    count = SIZES['images' if split == 'train' else 'val_images']
    assert len(dataset) == count
    classes = {'modelnet': 18, 'modelnet_txt': 18, 'scanobjectnn': 15}.get(name, 18)
    found = {}
    for i in range(count):
        results = dataset[i]
        found[results['points'].astype(np.float32).round(4).tobytes()] = results['gt_label']
    expected = {}
    for index in range(count):
        rng = np.random.default_rng([0, SPLITS.index(split), index])
        points = centre(draw_cloud(rng, split, CLOUD_NAMES[index % classes], 60).points, 'drawn')
        label = index % classes
        if name == 'point_cloud_folder':  # whose classes are sorted by name
            label = sorted(CLOUD_NAMES).index(CLOUD_NAMES[label])
        expected[points.round(4).tobytes()] = label
    if name == 'modelnet_txt':  # written with six digits, which may round to the other side
        assert sorted(found.values()) == sorted(expected.values())
        first = draw_cloud(np.random.default_rng([0, SPLITS.index(split), 0]), split, 'zero', 60)
        drawn = centre(first.points, 'drawn')
        np.testing.assert_allclose(dataset[0]['points'], drawn, atol=1e-6)
    else:
        assert found == expected


def test_all_variants_of_scanobjectnn(written):
    for variant in ('pb_t50_rs', 'obj_bg', 'obj_only'):
        dataset = open_split('scanobjectnn', written['scanobjectnn'], 'train', variant=variant)
        assert len(dataset) == 20 and dataset.metainfo['classes'] == SCAN_CLASSES


@pytest.mark.parametrize('name', FOLDERS)
def test_same_seed_same_files_and_fewer_are_the_first(written, name, tmp_path):
    more = FOLDERS[name]
    again = make_demo_data(name.removesuffix('_txt'), tmp_path / 'again', **SIZES, **more)
    assert read_tree(again).keys() == read_tree(written[name]).keys()
    if name != 'scanobjectnn':  # HDF5 keeps times
        assert read_tree(again) == read_tree(written[name])
    parameters = SIZES | dict(images=3)
    fewer = make_demo_data(name.removesuffix('_txt'), tmp_path / 'fewer', **parameters, **more)
    dataset = open_split(name, fewer, 'train')
    points = {dataset[i]['points'].tobytes() for i in range(3)}
    whole = open_split(name, written[name], 'train')
    assert points < {whole[i]['points'].tobytes() for i in range(20)}


def test_validation_shares_no_scan_with_training(written):
    for root in written.values():
        sources = json.loads((root / MANIFEST).read_text())['sources']
        train, val = (set(sources[split]['scans']) for split in SPLITS)
        assert train and val and not train & val


def test_class_names_of_the_layout_are_those_of_the_data_set():
    from unireplknet_mm.datasets.layouts.modelnet import CLASSES

    assert MODELNET_CLASSES[: len(CLASSES)] == CLASSES
    assert len(MODELNET_CLASSES) == len(set(MODELNET_CLASSES)) == 40
    assert list(MODELNET_CLASSES) == sorted(MODELNET_CLASSES)
    assert len(SCAN_CLASSES) == len(set(SCAN_CLASSES)) == 15


@pytest.mark.parametrize(
    ('layout', 'parameters', 'message'),
    [
        ('point_cloud_folder', dict(points=3), 'points must be at least 8, not 3'),
        ('point_cloud_folder', dict(num_classes=0), 'num_classes must be at least 1'),
        ('modelnet', dict(seed=-1), 'seed must not be negative'),
        ('modelnet', dict(num_classes=10), 'num_classes=10 does not fit the layout modelnet'),
        ('modelnet', dict(release='off'), "release must be dat or txt, not 'off'"),
        ('scanobjectnn', dict(num_classes=40), 'does not fit the layout scanobjectnn: it has 15'),
    ],
)
def test_parameters_out_of_range_are_named(tmp_path, layout, parameters, message):
    with pytest.raises(ArgumentError, match=message):
        make_demo_data(layout, tmp_path / 'out', 4, **parameters)
    assert not (tmp_path / 'out').exists()


def test_without_h5py_the_extra_is_named(tmp_path, written, monkeypatch):
    """In writing and in reading, and only there."""
    real = builtins.__import__

    def without_h5py(name, *arguments, **named):
        if name == 'h5py':
            raise ImportError('No module named h5py')
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, '__import__', without_h5py)
    with pytest.raises(MissingPackageError, match=r'unireplknet-mm\[point_cloud\]'):
        make_demo_data('scanobjectnn', tmp_path / 'out', 4)
    assert not (tmp_path / 'out').exists()
    with pytest.raises(MissingPackageError, match=r'unireplknet-mm\[point_cloud\]'):
        open_split('scanobjectnn', written['scanobjectnn'], 'train')
    assert len(open_split('modelnet', written['modelnet'], 'train')) == 20


@pytest.mark.parametrize(
    ('config', 'release'),
    [
        ('point_cloud/unireplknet_s_modelnet40', 'dat'),
        ('point_cloud/unireplknet_s_modelnet40', 'txt'),
        ('point_cloud/unireplknet_s_scanobjectnn', None),
        ('demo/solids_unireplknet_demo', None),
    ],
)
def test_a_config_runs_on_them(tmp_path, config, release):
    """What --demo-data does: the recipes' own pipelines give what the network takes."""
    cfg = load_config(ROOT / 'configs' / f'{config}.py')
    import_modules_from_strings(**cfg.custom_imports)
    loaders = [cfg[f'{split}_dataloader'] for split in ('train', 'val', 'test')]
    for loader in loaders:
        if release:
            loader.dataset.release = release
    use_demo_data(cfg, tmp_path, train_images=2, val_images=1)
    count = cfg.input_shape[0]
    views = {0: (), 1: (1,), 2: (8,)} if 'point_cloud' in config else {0: (), 1: (), 2: ()}
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for number, loader in enumerate(loaders):
            dataset = DATASETS.build(loader.dataset)
            assert len(dataset) == (1 if number else 2)
            sample = dataset[0]
            assert sample['inputs'].shape == (*views[number], count, 3)
            assert sample['data_samples'].gt_label.item() == 0 or 'demo' in config


@pytest.mark.parametrize('layout', ['modelnet', 'scanobjectnn'])
def test_where_to_get_the_data(layout):
    kind = LAYOUTS[layout].dataset_types[0]
    loader = dict(dataset=dict(type=kind, data_root='data/nothing'))
    with pytest.raises(UserError) as error:
        check_data(Config(dict(train_dataloader=loader)), 'train')
    assert LAYOUTS[layout].title in str(error.value) and 'data/nothing' in str(error.value)
