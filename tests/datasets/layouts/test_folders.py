"""Folders of images and of label maps, as mmseg reads them."""

import cv2
import numpy as np
import pytest
from helpers import SMALL_DEMO_DATA
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from unireplknet_mm.datasets import make_demo_data, use_demo_data
from unireplknet_mm.errors import ArgumentError


def config(num_classes: int, **dataset) -> Config:
    dataset = dict(
        dataset,
        type='BaseSegDataset',
        data_root='data/camvid/',
        img_suffix='.tif',
        metainfo=dict(classes=[f'class {index}' for index in range(num_classes)]),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
    )
    return Config(
        dict(
            default_scope='mmseg',
            train_dataloader=dict(batch_size=2, dataset=dataset),
            val_dataloader=dict(batch_size=2, dataset=dataset),
        )
    )


def labels_of(cfg: Config) -> set[int]:
    init_default_scope('mmseg')
    found = set()
    for loader, samples in (('train_dataloader', 20), ('val_dataloader', 2)):
        dataset = DATASETS.build(cfg[loader].dataset)
        assert len(dataset) == samples
        for sample in dataset:
            assert sample['img'].shape[:2] == sample['gt_seg_map'].shape
            found |= set(np.unique(sample['gt_seg_map']).tolist())
    return found


@pytest.mark.parametrize(
    ('num_classes', 'options', 'expected', 'ignored'),
    [
        (11, dict(ignore_index=11), range(11), 11),
        (150, dict(), range(11), 255),
        (3, dict(ignore_index=3), range(3), 3),
        (2, dict(reduce_zero_label=True), range(2), 255),
        (13, dict(reduce_zero_label=True, ignore_index=254), range(11), 255),
    ],
)
def test_labels(tmp_path, num_classes, options, expected, ignored):
    """The digits, the background as the last class, and the rim of the ink, which is of no class."""
    cfg = use_demo_data(config(num_classes, **options), tmp_path, train_images=20)
    assert labels_of(cfg) == {*expected, ignored}


def test_background_is_what_is_not_drawn(generated):
    """The label map of the same scene in the ADE20K layout, where the labels are one higher."""

    def read(path):
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)

    for index in range(SMALL_DEMO_DATA['images']):
        label_map = read(generated['folders'] / f'trainannot/{index + 1:06d}.png')
        expected = read(generated['ade20k'] / f'annotations/training/ADE_train_{index + 1:08d}.png')
        np.testing.assert_array_equal(label_map, (expected - 1).astype(np.uint8))  # 0 becomes 255


def test_errors(tmp_path):
    cfg = config(4)
    cfg.val_dataloader.dataset.ignore_index = 4
    with pytest.raises(ArgumentError, match='differ in ignore_index or reduce_zero_label'):
        use_demo_data(cfg, tmp_path)
    for parameters, message in (
        (dict(num_classes=1), 'num_classes=1 does not fit the layout folders'),
        (dict(ignore_index=256), 'from 11, after the labels of the classes, to 255, not 256'),
        (dict(num_classes=4, ignore_index=3), 'ignore_index must be from 4'),
    ):
        with pytest.raises(ArgumentError, match=message):
            make_demo_data('folders', tmp_path / 'out', 1, **parameters)
    assert not any(tmp_path.iterdir())
