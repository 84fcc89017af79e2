"""The ImageNet-22K layout as mmpretrain reads it, by its list and by its folders."""

from helpers import SMALL_DEMO_DATA
from mmengine.registry import init_default_scope


def test_imagenet22k_loads_in_mmpretrain(generated):
    init_default_scope('mmpretrain')
    from mmpretrain.datasets import ImageNet21k

    root = str(generated['imagenet22k'])
    by_list = ImageNet21k(data_root=root, split='train')
    assert by_list.ann_file == f'{root}/meta/train.txt'
    by_folder = ImageNet21k(data_root=root, data_prefix='train')
    assert by_folder.ann_file == ''
    labels, again = (
        {info['img_path']: info['gt_label'] for info in dataset.load_data_list()}
        for dataset in (by_list, by_folder)
    )
    assert labels == again
    count = SMALL_DEMO_DATA['images']
    assert sorted(labels.values()) == sorted(index % 10 for index in range(count))
