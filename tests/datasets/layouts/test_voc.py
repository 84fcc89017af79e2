"""The layout of Pascal VOC as mmdet reads it."""

import cv2
import pytest
from helpers import SMALL_DEMO_DATA
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

import unireplknet_mm  # noqa: F401  (provides the mmcv ops that mmdet imports)
from unireplknet_mm.datasets import make_demo_data, use_demo_data
from unireplknet_mm.datasets.drawing import DIGIT_NAMES
from unireplknet_mm.datasets.layouts.base import SPLITS


@pytest.mark.parametrize('split', SPLITS)
def test_loads_in_mmdet(generated, tmp_path, split):
    """The boxes are those of the COCO layout, which holds the same scenes."""
    init_default_scope('mmdet')
    from mmdet.datasets import CocoDataset, XMLDataset

    metainfo = dict(classes=DIGIT_NAMES)
    dataset = XMLDataset(
        data_root=str(generated['voc']),
        ann_file=f'ImageSets/Main/{split}.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=metainfo,
        test_mode=True,
    )
    assert len(dataset) == SMALL_DEMO_DATA['images' if split == 'train' else 'val_images']
    coco = CocoDataset(
        data_root=str(make_demo_data('coco', tmp_path / 'coco', **SMALL_DEMO_DATA)),
        ann_file=f'annotations/instances_{split}2017.json',
        data_prefix=dict(img=f'{split}2017/'),
        metainfo=metainfo,
        test_mode=True,
    )
    for index in range(len(dataset)):
        sample, expected = dataset.get_data_info(index), coco.get_data_info(index)
        image = cv2.imread(sample['img_path'])
        assert image.shape == (sample['height'], sample['width'], 3) == (96, 120, 3)
        assert (image == cv2.imread(expected['img_path'])).all()
        labels = [instance['bbox_label'] for instance in sample['instances']]
        assert labels == [instance['bbox_label'] for instance in expected['instances']]
        assert not any(instance['ignore_flag'] for instance in sample['instances'])
        # XMLDataset takes 1 from the corners, and the last row and column are inside the box.
        boxes = [[x, y, right + 1, bottom + 1] for x, y, right, bottom in boxes_of(sample)]
        assert boxes == boxes_of(expected)


def boxes_of(sample: dict) -> list[list[float]]:
    return [list(instance['bbox']) for instance in sample['instances']]


def test_config_keeps_its_number_of_classes(tmp_path):
    dataset = dict(
        type='VOCDataset',
        data_root='data/VOCdevkit/',
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root='VOC2007/'),
    )
    cfg = Config(
        dict(model=dict(bbox_head=dict(num_classes=12)), train_dataloader=dict(dataset=dataset))
    )
    use_demo_data(cfg, tmp_path)
    dataset = cfg.train_dataloader.dataset
    assert dataset.data_root == f'{tmp_path}/voc-12classes-4train-2val/'
    assert dataset.metainfo.classes == (*DIGIT_NAMES, 'unused_10', 'unused_11')
    init_default_scope('mmdet')
    built = DATASETS.build(dataset)
    assert len(built) == 4 and len(built.metainfo['classes']) == 12
