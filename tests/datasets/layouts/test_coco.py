"""The COCO layout: boxes, areas and masks are those of the scenes; mmdet reads it."""

import json

import cv2
import numpy as np
import pytest
from helpers import SMALL_DEMO_DATA
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO

import unireplknet_mm  # noqa: F401  (provides the mmcv ops that mmdet imports)
from unireplknet_mm.datasets import make_demo_data
from unireplknet_mm.datasets.demo import MANIFEST
from unireplknet_mm.datasets.drawing import DIGIT_NAMES, draw_scene
from unireplknet_mm.datasets.layouts.base import SPLITS


def test_coco_records_the_sources_of_every_image(generated):
    sources = json.loads((generated['coco'] / MANIFEST).read_text())['sources']
    for split in SPLITS:
        document = json.loads(
            (generated['coco'] / f'annotations/instances_{split}2017.json').read_text()
        )
        assert {image['photograph'] for image in document['images']} == set(
            sources[split]['photographs']
        )
        assert {ann['scan'] for ann in document['annotations']} == set(sources[split]['scans'])


@pytest.mark.parametrize('mask_format', ['polygon', 'rle'])
def test_coco_boxes_areas_and_masks_agree(mask_format, tmp_path):
    out = make_demo_data('coco', tmp_path / 'coco', **SMALL_DEMO_DATA, mask_format=mask_format)
    kind = list if mask_format == 'polygon' else dict
    for split in SPLITS:
        coco = COCO(out / f'annotations/instances_{split}2017.json')
        assert len(coco.imgs) == SMALL_DEMO_DATA['images' if split == 'train' else 'val_images']
        for image_id, image in coco.imgs.items():
            pixels = cv2.imread(str(out / f'{split}2017' / image['file_name']))
            assert pixels.shape == (image['height'], image['width'], 3) == (96, 120, 3)
            annotations = coco.loadAnns(coco.getAnnIds(image_id))
            assert 1 <= len(annotations) <= 6
            covered = np.zeros((96, 120), int)
            for annotation in annotations:
                assert isinstance(annotation['segmentation'], kind)
                mask = coco.annToMask(annotation)
                rows, columns = np.nonzero(mask)
                x, y, w, h = annotation['bbox']
                assert annotation['area'] == mask.sum() > 0
                assert (columns.min(), rows.min()) == (x, y)
                assert (columns.max() + 1, rows.max() + 1) == (x + w, y + h)
                covered += mask
            assert covered.max() == 1


def test_coco_masks_are_those_of_the_scene(generated):
    coco = COCO(generated['coco'] / 'annotations/instances_val2017.json')
    scene = draw_scene(
        np.random.default_rng([0, 1, 2]),
        'val',
        SMALL_DEMO_DATA['size'],
        (2, 6),
        (0.14, 0.4),
        range(10),
    )
    annotations = coco.loadAnns(coco.getAnnIds(3))
    assert [annotation['category_id'] - 1 for annotation in annotations] == list(scene.labels)
    for index, annotation in enumerate(annotations):
        np.testing.assert_array_equal(coco.annToMask(annotation), scene.owner == index)


def test_coco_loads_in_mmdet(generated):
    init_default_scope('mmdet')
    from mmdet.datasets import CocoDataset

    for poly2mask in (True, False):
        dataset = CocoDataset(
            data_root=str(generated['coco']),
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'),
            metainfo=dict(classes=DIGIT_NAMES),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=poly2mask),
            ],
        )
        assert len(dataset) == SMALL_DEMO_DATA['images']
        document = json.loads((generated['coco'] / dataset.ann_file).read_text())
        for sample, image in zip(dataset, document['images'], strict=True):
            annotations = [a for a in document['annotations'] if a['image_id'] == image['id']]
            labels = [annotation['category_id'] - 1 for annotation in annotations]
            assert sample['gt_bboxes_labels'].tolist() == labels
            assert not sample['gt_ignore_flags'].any()
            areas = [annotation['area'] for annotation in annotations]
            assert sample['gt_masks'].areas.tolist() == pytest.approx(areas)
