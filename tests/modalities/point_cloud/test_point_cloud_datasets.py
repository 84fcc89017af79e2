"""Data sets of clouds: what is missing or not as it should be is named; the metric."""

import pickle

import h5py
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from unireplknet_mm.errors import ArgumentError, MissingFileError
from unireplknet_mm.modalities.point_cloud import (
    ModelNet,
    OverallAndMeanAccuracy,
    PointCloudError,
    PointCloudFolder,
    ScanObjectNN,
)

CLOUD = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
DAT = 'modelnet40_train_8192pts_fps.dat'
H5 = 'main_split/training_objectdataset_augmentedrot_scale75.h5'


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([[CLOUD], [1, 2]], 'has 1 clouds and 2 labels'),
        ([[], []], 'has 0 clouds and 0 labels'),
        ([[CLOUD]], 'holds no pair of clouds and labels'),
        ([[CLOUD], [40]], 'has the label 40 of 40 classes'),
        ([[CLOUD], [-1]], 'has the label -1 of 40 classes'),
        ([[CLOUD], ['chair']], "has the label 'chair', which is no whole number"),
        ([[CLOUD], [1.5]], 'has the label 1.5, which is no whole number'),
        ([1, [1]], 'has no list of clouds, but 1'),
        ([[CLOUD], 1], 'has no list of labels, but 1'),
        ([[[[1.0], [1.0, 2.0]]], [1]], 'holds a list that is no array'),
        ([[CLOUD, CLOUD[:, :2]], [1, 2]], r'cloud 1 is of shape \(30, 2\)'),
    ],
)
def test_other_content_of_modelnet(tmp_path, content, message):
    (tmp_path / DAT).write_bytes(pickle.dumps(content))
    with pytest.raises(PointCloudError, match=message) as error:
        ModelNet(str(tmp_path))
    assert DAT in str(error.value)


def test_modelnet_of_the_dat_release_with_normals_is_turned(tmp_path):
    """y is up in the file, z in what comes out; the normals are left out."""
    cloud = np.concatenate([CLOUD, CLOUD], 1)
    (tmp_path / DAT).write_bytes(pickle.dumps([[cloud], [np.array([7])]]))
    dataset = ModelNet(str(tmp_path), pipeline=[dict(type='LoadPointCloud')])
    sample = dataset[0]
    turned = (CLOUD - CLOUD.mean(0))[:, [2, 0, 1]] * [-1, -1, 1]
    np.testing.assert_allclose(sample['points'], turned, atol=1e-6)
    assert sample['gt_label'] == 7 and dataset.metainfo['classes'][7] == 'car'
    sample['points'][:] = 0  # a transform may write into what it gets
    np.testing.assert_allclose(dataset[0]['points'], turned, atol=1e-6)


def test_names_of_no_class(tmp_path):
    (tmp_path / 'modelnet40_test.txt').write_text('chair_0001\nnight_stand_0002\nhorse_0001\n')
    with pytest.raises(PointCloudError, match="'horse_0001' is of no class of ModelNet-40"):
        ModelNet(str(tmp_path), subset='test', release='txt')
    (tmp_path / 'modelnet40_test.txt').write_text('chair_0001\nnight_stand_0002\n')
    dataset = ModelNet(str(tmp_path), subset='test', release='txt')
    assert [dataset.get_data_info(i)['gt_label'] for i in range(2)] == [8, 23]
    assert dataset.get_data_info(1)['cloud_path'].endswith('night_stand/night_stand_0002.txt')
    (tmp_path / 'modelnet40_test.txt').write_text('')
    with pytest.raises(PointCloudError, match='there is no name in this list'):
        ModelNet(str(tmp_path), subset='test', release='txt')


@pytest.mark.parametrize(
    ('kind', 'settings', 'missing'),
    [
        (ModelNet, dict(), DAT),
        (ModelNet, dict(release='txt', subset='test'), 'modelnet40_test.txt'),
        (ScanObjectNN, dict(), H5),
        (ScanObjectNN, dict(variant='obj_only'), 'main_split_nobg/training_objectdataset.h5'),
        (PointCloudFolder, dict(data_prefix='train'), 'train'),
    ],
)
def test_what_is_not_there(tmp_path, kind, settings, missing):
    with pytest.raises(MissingFileError, match='does not exist') as error:
        kind(str(tmp_path), **settings)
    assert missing in str(error.value)


def test_other_names():
    for kind, settings in (
        (ModelNet, dict(subset='val')),
        (ModelNet, dict(release='off')),
        (ScanObjectNN, dict(subset='training')),
        (ScanObjectNN, dict(variant='hardest')),
    ):
        (value,) = settings.values()
        with pytest.raises(ArgumentError, match=value):
            kind('data', **settings)


def test_other_hdf5_files(tmp_path):
    path = tmp_path / H5
    path.parent.mkdir()
    path.write_bytes(b'no HDF5')
    with pytest.raises(PointCloudError, match='is no HDF5 file with data and label'):
        ScanObjectNN(str(tmp_path))
    with h5py.File(path, 'w') as file:
        file['data'] = CLOUD[None]
    with pytest.raises(PointCloudError, match='is no HDF5 file with data and label'):
        ScanObjectNN(str(tmp_path))
    with h5py.File(path, 'a') as file:
        file['label'] = np.array([15])
    with pytest.raises(PointCloudError, match='has the label 15 of 15 classes'):
        ScanObjectNN(str(tmp_path))
    for name, message in dict(label='no list of labels', data='no list of clouds').items():
        with h5py.File(path, 'a') as file:
            del file[name]
            file[name] = np.float32(3)
        with pytest.raises(PointCloudError, match=message):
            ScanObjectNN(str(tmp_path))


def test_hdf5_of_whole_numbers(tmp_path):
    path = tmp_path / H5
    path.parent.mkdir()
    with h5py.File(path, 'w') as file:
        file['data'], file['label'] = np.arange(12, dtype=np.uint8).reshape(1, 4, 3), [3]
    assert ScanObjectNN(str(tmp_path))[0]['points'][0].tolist() == [-2, 0, 1]


def test_a_list_of_modelnet_with_a_byte_order_mark(tmp_path):
    (tmp_path / 'modelnet40_train.txt').write_text('chair_0001\r\n', 'utf-8-sig')
    assert ModelNet(str(tmp_path), release='txt')[0]['gt_label'] == 8


def write(path, points=CLOUD):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, points)


def test_folders_are_classes(tmp_path):
    for name in ('train/chair/2.npy', 'train/chair/1.npy', 'train/bed/3.npy', 'train/bed/.4.npy'):
        write(tmp_path / name)
    (tmp_path / 'train/chair/notes.md').write_text('')
    (tmp_path / 'train/.ipynb_checkpoints').mkdir()
    dataset = PointCloudFolder(str(tmp_path), data_prefix='train')
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    names = [info['cloud_path'].removeprefix(f'{tmp_path}/train/') for info in infos]
    assert names == ['bed/3.npy', 'chair/1.npy', 'chair/2.npy']
    assert [info['gt_label'] for info in infos] == [0, 1, 1]
    assert dataset.metainfo['classes'] == ('bed', 'chair')
    named = PointCloudFolder(str(tmp_path), 'train', classes=('sofa', 'chair', 'bed'))
    assert [named.get_data_info(i)['gt_label'] for i in range(3)] == [1, 1, 2]
    with pytest.raises(ArgumentError, match='folders that are no classes: bed'):
        PointCloudFolder(str(tmp_path), 'train', classes=('sofa', 'chair'))


def test_a_split_in_the_folder_of_a_class(tmp_path):
    """As Princeton's release of ModelNet has it."""
    for name in ('chair/train/1.npy', 'chair/test/2.npy', 'bed/train/3.npy'):
        write(tmp_path / name)
    dataset = PointCloudFolder(str(tmp_path), inner='train')
    assert len(dataset) == 2 and dataset.get_data_info(0)['cloud_path'].endswith('bed/train/3.npy')
    with pytest.raises(PointCloudError, match=r'there is no CLASS/val/NAME\{\.ply'):
        PointCloudFolder(str(tmp_path), inner='val')


def test_overall_and_mean_accuracy():
    metric = OverallAndMeanAccuracy()
    labels = [0, 0, 0, 0, 2, 2]
    predicted = [0, 0, 0, 1, 2, 0]
    for label, prediction in zip(labels, predicted, strict=True):
        score = torch.zeros(4)
        score[prediction] = 1
        metric.process(None, [dict(gt_label=torch.tensor([label]), pred_score=score)])
    scores = metric.evaluate(6)
    assert scores == {
        'accuracy/OA': pytest.approx(100 * 4 / 6),
        'accuracy/mAcc': pytest.approx(100 * (3 / 4 + 1 / 2) / 2),
    }
