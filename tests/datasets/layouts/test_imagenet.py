"""The ImageNet layout as mmpretrain reads it, by its lists and by its folders."""

import cv2
from helpers import SMALL_DEMO_DATA
from mmengine.registry import init_default_scope

from unireplknet_mm.datasets.drawing import DIGIT_NAMES
from unireplknet_mm.datasets.layouts.base import SPLITS


def test_imagenet_loads_in_mmpretrain(generated):
    init_default_scope('mmpretrain')
    from mmpretrain.datasets import ImageNet

    root = str(generated['imagenet'])
    for split in SPLITS:
        count = SMALL_DEMO_DATA['images' if split == 'train' else 'val_images']
        by_list = ImageNet(data_root=root, split=split)
        assert by_list.ann_file == f'{root}/meta/{split}.txt'
        assert sorted(by_list.get_gt_labels()) == sorted(index % 10 for index in range(count))
        paths = [by_list.get_data_info(index)['img_path'] for index in range(count)]
        assert all(cv2.imread(path).shape == (96, 120, 3) for path in paths)
        # The folders alone say the same.
        by_folder = ImageNet(data_root=root, data_prefix=split, metainfo=dict(classes=DIGIT_NAMES))
        labels = {info['img_path']: info['gt_label'] for info in by_folder.load_data_list()}
        assert labels == {info['img_path']: info['gt_label'] for info in by_list.load_data_list()}
