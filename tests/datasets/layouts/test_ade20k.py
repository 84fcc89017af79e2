"""The ADE20K layout as mmseg reads it."""

import numpy as np
from helpers import SMALL_DEMO_DATA
from mmengine.registry import init_default_scope

from unireplknet_mm.datasets.layouts.ade20k import BACKGROUND


def test_ade20k_loads_in_mmseg(generated):
    init_default_scope('mmseg')
    from mmseg.datasets import ADE20KDataset

    seen = set()
    for split, folder in (('train', 'training'), ('val', 'validation')):
        dataset = ADE20KDataset(
            data_root=str(generated['ade20k']),
            data_prefix=dict(img_path=f'images/{folder}', seg_map_path=f'annotations/{folder}'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', reduce_zero_label=True),
            ],
        )
        assert len(dataset) == SMALL_DEMO_DATA['images' if split == 'train' else 'val_images']
        for sample in dataset:
            assert sample['img'].shape == (96, 120, 3) and sample['gt_seg_map'].shape == (96, 120)
            assert np.mean(sample['gt_seg_map'] == BACKGROUND - 1) > 0.4
            seen |= set(np.unique(sample['gt_seg_map']).tolist())
    assert seen == set(range(11)) | {255}
