"""The Cityscapes layout as mmseg reads it."""

import numpy as np
from helpers import SMALL_DEMO_DATA
from mmengine.registry import init_default_scope

from unireplknet_mm.datasets.layouts.cityscapes import BACKGROUND, LAYOUT, UNLABELLED


def test_cityscapes_loads_in_mmseg(generated):
    init_default_scope('mmseg')
    from mmseg.datasets import CityscapesDataset

    seen = set()
    for split in ('train', 'val'):
        dataset = CityscapesDataset(
            data_root=str(generated['cityscapes']),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')],
            **LAYOUT.dataset_settings(split, {}),
        )
        assert len(dataset) == SMALL_DEMO_DATA['images' if split == 'train' else 'val_images']
        for sample in dataset:
            assert sample['img'].shape == (96, 120, 3) and sample['gt_seg_map'].shape == (96, 120)
            assert np.mean(sample['gt_seg_map'] == BACKGROUND) > 0.4
            seen |= set(np.unique(sample['gt_seg_map']).tolist())
    assert seen == {*range(BACKGROUND + 1), UNLABELLED}
