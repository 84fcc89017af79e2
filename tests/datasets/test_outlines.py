"""Polygons and run lengths cover exactly the mask, as pycocotools reads them."""

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from unireplknet_mm.datasets.outlines import mask_to_polygons, mask_to_rle


def awkward_masks() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    ring = np.pad(np.pad(np.ones((3, 4), bool), 2, constant_values=False), 2, constant_values=True)
    noise = cv2.GaussianBlur(rng.random((60, 70)), (0, 0), 2)
    return {
        'pixel': np.pad(np.ones((1, 1), bool), 3),
        'full': np.ones((7, 5), bool),
        'ring around a block': ring,
        'checkerboard': np.indices((8, 9)).sum(0) % 2 == 0,
        'one-pixel hole': ~np.pad(np.ones((1, 1), bool), 1),
        'diagonal holes': ~np.pad(np.eye(4, dtype=bool), 1),
        'column': np.eye(1, 9, 4, dtype=bool).repeat(6, 0),
        'blobs': noise > np.median(noise),
        'salt': rng.random((30, 31)) > 0.5,
    }


@pytest.mark.parametrize('name', awkward_masks())
def test_polygons_and_run_lengths_cover_exactly_the_mask(name):
    mask = awkward_masks()[name]
    height, width = mask.shape
    polygons = mask_to_polygons(mask)
    assert all(len(polygon) >= 8 and len(polygon) % 2 == 0 for polygon in polygons)
    runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    np.testing.assert_array_equal(coco_mask.decode(runs), mask)
    runs = coco_mask.frPyObjects(mask_to_rle(mask), height, width)
    np.testing.assert_array_equal(coco_mask.decode(runs), mask)


def test_empty_mask_has_no_outline():
    assert mask_to_polygons(np.zeros((3, 4), bool)) == []
