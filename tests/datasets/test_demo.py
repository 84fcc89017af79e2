"""The generated data: reproducible, split cleanly, exact, readable by the OpenMMLab data sets."""

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

import unireplknet_mm  # noqa: F401  (provides the mmcv ops that mmdet imports)
from unireplknet_mm.datasets import demo, make_demo_data

ROOT = Path(__file__).parents[2]
SMALL = dict(size=(120, 96), images=12, val_images=6)


@pytest.fixture(scope='module')
def generated(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp('demo')
    return {layout: make_demo_data(layout, root / layout, **SMALL) for layout in demo.LAYOUTS}


def read_tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def draw(split: str, index: int, **kwargs) -> demo.Scene:
    arguments = dict(
        size=(160, 120), digits_per_image=(3, 6), digit_size=(0.2, 0.5), labels=range(10)
    )
    rng = np.random.default_rng([7, demo.SPLITS.index(split), index])
    return demo.draw_scene(rng, split, **(arguments | kwargs))


@pytest.mark.parametrize('layout', demo.LAYOUTS)
def test_same_seed_same_files(layout, generated, tmp_path):
    again = make_demo_data(layout, tmp_path / 'again', **SMALL)
    assert read_tree(again) == read_tree(generated[layout])
    other = make_demo_data(layout, tmp_path / 'other', **SMALL, seed=1)
    assert read_tree(other) != read_tree(generated[layout])


@pytest.mark.parametrize('layout', demo.LAYOUTS)
def test_larger_data_set_starts_with_the_smaller(layout, generated, tmp_path):
    parameters = SMALL | dict(images=5, val_images=2)
    smaller = read_tree(make_demo_data(layout, tmp_path / layout, **parameters))
    larger = read_tree(generated[layout])
    images = [name for name in smaller if name.lower().endswith(('jpg', 'jpeg', 'png'))]
    assert len(images) == (7 if layout != 'ade20k' else 14)
    assert all(smaller[name] == larger[name] for name in images)
    if layout == 'coco':
        name = 'annotations/instances_train2017.json'
        few, many = json.loads(smaller[name]), json.loads(larger[name])
        assert few['annotations'] == many['annotations'][: len(few['annotations'])]


@pytest.mark.parametrize('layout', demo.LAYOUTS)
def test_validation_shares_no_source_with_training(layout, generated):
    sources = json.loads((generated[layout] / demo.MANIFEST).read_text())['sources']
    for kind in ('photographs', 'scans'):
        train, val = set(sources['train'][kind]), set(sources['val'][kind])
        assert train and val and not train & val
    assert set(sources['train']['photographs']) <= set(demo.PHOTOGRAPHS['train'])
    assert set(sources['val']['photographs']) <= set(demo.PHOTOGRAPHS['val'])


def test_all_sources_are_split_and_differ():
    photographs = {split: demo.load_photographs(split) for split in demo.SPLITS}
    contents = [image.tobytes() for images in photographs.values() for image in images.values()]
    assert len(contents) == len(set(contents)) == 16
    scans = {
        split: [entry for entries in demo.load_scans(split).values() for entry in entries]
        for split in demo.SPLITS
    }
    indices = {split: {index for index, _ in entries} for split, entries in scans.items()}
    assert indices['train'] | indices['val'] == set(range(1797))
    assert not indices['train'] & indices['val']
    inks = {split: {ink.tobytes() for _, ink in entries} for split, entries in scans.items()}
    assert not inks['train'] & inks['val']
    assert min(len(entries) for entries in demo.load_scans('val').values()) >= 30


def test_coco_records_the_sources_of_every_image(generated):
    sources = json.loads((generated['coco'] / demo.MANIFEST).read_text())['sources']
    for split in demo.SPLITS:
        document = json.loads(
            (generated['coco'] / f'annotations/instances_{split}2017.json').read_text()
        )
        assert {image['photograph'] for image in document['images']} == set(
            sources[split]['photographs']
        )
        assert {ann['scan'] for ann in document['annotations']} == set(sources[split]['scans'])


def test_mask_is_what_was_inked():
    for index in range(20):
        scene = draw('train', index)
        # The background is the first thing drawn from the same generator.
        rng = np.random.default_rng([7, 0, index])
        names = demo.PHOTOGRAPHS['train']
        photograph = demo.load_photographs('train')[names[rng.integers(len(names))]]
        background = demo._crop_background(rng, photograph, (160, 120))
        change = np.abs(scene.image.astype(np.float32) - background).max(-1)
        assert not (scene.fringe & (scene.owner >= 0)).any()
        assert change[(scene.owner < 0) & ~scene.fringe].max() <= 0.1 * 255 + 1
        for digit in range(len(scene.labels)):
            assert np.mean(change[scene.owner == digit] >= 25) > 0.75


def test_digits_stand_out_from_what_they_are_drawn_on():
    rng = np.random.default_rng(0)
    for low, high in ((0, 20), (230, 255), (110, 140), (0, 120), (130, 255)):
        pixels = rng.uniform(low, high, (500, 1)).repeat(3, 1)
        for _ in range(20):
            contrast = np.abs(demo._ink_colour(rng, pixels).mean() - pixels.mean(1))
            assert np.mean(contrast >= 40) >= 0.85


def test_overlap_is_bounded():
    rng = np.random.default_rng(0)
    inked = np.ones((10, 10), bool)
    covered = np.zeros((40, 40), np.int16)  # one digit everywhere: 100 of 1,600 pixels may go
    assert demo._place(rng, covered, inked, [1600]) is not None
    assert demo._place(rng, covered, inked, [1700]) is None  # 100 of them were hidden before
    small = np.full((12, 12), -1, np.int16)
    small[:5] = 0
    assert demo._place(rng, small, inked, [60]) is None


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
    polygons = demo.mask_to_polygons(mask)
    assert all(len(polygon) >= 8 and len(polygon) % 2 == 0 for polygon in polygons)
    runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    np.testing.assert_array_equal(coco_mask.decode(runs), mask)
    runs = coco_mask.frPyObjects(demo.mask_to_rle(mask), height, width)
    np.testing.assert_array_equal(coco_mask.decode(runs), mask)


def test_empty_mask_has_no_outline():
    assert demo.mask_to_polygons(np.zeros((3, 4), bool)) == []


@pytest.mark.parametrize('mask_format', ['polygon', 'rle'])
def test_coco_boxes_areas_and_masks_agree(mask_format, tmp_path):
    out = make_demo_data('coco', tmp_path / 'coco', **SMALL, mask_format=mask_format)
    kind = list if mask_format == 'polygon' else dict
    for split in demo.SPLITS:
        coco = COCO(out / f'annotations/instances_{split}2017.json')
        assert len(coco.imgs) == SMALL['images' if split == 'train' else 'val_images']
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
    scene = demo.draw_scene(
        np.random.default_rng([0, 1, 2]), 'val', SMALL['size'], (2, 6), (0.14, 0.4), range(10)
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
            metainfo=dict(classes=demo.DIGIT_NAMES),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=poly2mask),
            ],
        )
        assert len(dataset) == SMALL['images']
        document = json.loads((generated['coco'] / dataset.ann_file).read_text())
        for sample, image in zip(dataset, document['images'], strict=True):
            annotations = [a for a in document['annotations'] if a['image_id'] == image['id']]
            labels = [annotation['category_id'] - 1 for annotation in annotations]
            assert sample['gt_bboxes_labels'].tolist() == labels
            assert not sample['gt_ignore_flags'].any()
            areas = [annotation['area'] for annotation in annotations]
            assert sample['gt_masks'].areas.tolist() == pytest.approx(areas)


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
        assert len(dataset) == SMALL['images' if split == 'train' else 'val_images']
        for sample in dataset:
            assert sample['img'].shape == (96, 120, 3) and sample['gt_seg_map'].shape == (96, 120)
            assert np.mean(sample['gt_seg_map'] == demo.ADE20K_BACKGROUND - 1) > 0.4
            seen |= set(np.unique(sample['gt_seg_map']).tolist())
    assert seen == set(range(11)) | {255}


def test_imagenet_loads_in_mmpretrain(generated):
    init_default_scope('mmpretrain')
    from mmpretrain.datasets import ImageNet

    root = str(generated['imagenet'])
    for split in demo.SPLITS:
        count = SMALL['images' if split == 'train' else 'val_images']
        by_list = ImageNet(data_root=root, split=split)
        assert by_list.ann_file == f'{root}/meta/{split}.txt'
        assert sorted(by_list.get_gt_labels()) == sorted(index % 10 for index in range(count))
        paths = [by_list.get_data_info(index)['img_path'] for index in range(count)]
        assert all(cv2.imread(path).shape == (96, 120, 3) for path in paths)
        # The folders alone say the same.
        by_folder = ImageNet(
            data_root=root, data_prefix=split, metainfo=dict(classes=demo.DIGIT_NAMES)
        )
        labels = {info['img_path']: info['gt_label'] for info in by_folder.load_data_list()}
        assert labels == {info['img_path']: info['gt_label'] for info in by_list.load_data_list()}


def test_number_of_classes(tmp_path):
    out = make_demo_data('coco', tmp_path / 'many', **SMALL, num_classes=80)
    categories = json.loads((out / 'annotations/instances_val2017.json').read_text())['categories']
    assert [category['id'] for category in categories] == list(range(1, 81))
    assert [category['name'] for category in categories[8:11]] == ['eight', 'nine', 'unused_10']
    out = make_demo_data('coco', tmp_path / 'few', **SMALL, num_classes=2)
    document = json.loads((out / 'annotations/instances_train2017.json').read_text())
    assert [category['name'] for category in document['categories']] == ['zero', 'one']
    assert {annotation['category_id'] for annotation in document['annotations']} == {1, 2}
    out = make_demo_data('imagenet', tmp_path / 'classes', **SMALL, num_classes=3)
    assert sorted(path.name for path in (out / 'train').iterdir()) == ['0_zero', '1_one', '2_two']


def test_size_and_count_of_digits():
    scenes = [draw('val', i, digits_per_image=(1, 1), digit_size=(0.5, 0.5)) for i in range(10)]
    assert all(len(scene.labels) == 1 for scene in scenes)
    heights = [np.ptp(np.nonzero(scene.owner == 0)[0]) + 1 for scene in scenes]
    assert np.mean(heights) == pytest.approx(0.5 * 120, rel=0.15)


def test_existing_data_are_reused(generated, monkeypatch):
    monkeypatch.setattr(demo, 'draw_scene', None)  # drawing would fail
    before = read_tree(generated['coco'])
    assert make_demo_data('coco', generated['coco'], **SMALL) == generated['coco']
    assert read_tree(generated['coco']) == before


def test_other_data_are_replaced_only_on_demand(tmp_path):
    out = tmp_path / 'imagenet'
    make_demo_data('imagenet', out, images=2, val_images=1, size=(64, 64))
    with pytest.raises(FileExistsError, match=r'holds other demo data \(images=2\).*overwrite'):
        make_demo_data('imagenet', out, images=3, val_images=1, size=(64, 64))
    make_demo_data('imagenet', out, images=3, val_images=1, size=(64, 64), overwrite=True)
    assert len(list(out.glob('train/*/*.JPEG'))) == 3
    assert os.listdir(tmp_path) == ['imagenet']


def test_data_of_an_older_version_are_replaced(tmp_path, monkeypatch):
    arguments = dict(layout='imagenet', out=tmp_path / 'imagenet', images=1, size=(64, 64))
    with monkeypatch.context() as patch:
        patch.setattr(demo, 'FORMAT_VERSION', demo.FORMAT_VERSION - 1)
        out = make_demo_data(**arguments)
    before = read_tree(out)
    make_demo_data(**arguments)
    after = read_tree(out)
    assert before.pop(demo.MANIFEST) != after.pop(demo.MANIFEST)
    assert before == after and os.listdir(tmp_path) == ['imagenet']


def test_foreign_folder_is_never_replaced(tmp_path):
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own' / 'thesis.txt').write_text('three years')
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match='is not demo data'):
            make_demo_data('coco', tmp_path / 'own', **SMALL, overwrite=overwrite)
    assert (tmp_path / 'own' / 'thesis.txt').read_text() == 'three years'


def test_empty_folder_and_link_are_filled(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'disk')
    out = make_demo_data('imagenet', tmp_path / 'link', images=1, size=(64, 64))
    assert out == tmp_path / 'link' and (tmp_path / 'disk' / demo.MANIFEST).is_file()


@pytest.mark.parametrize('interruption', [KeyboardInterrupt, MemoryError, OSError('disk full')])
def test_interruption_leaves_nothing(interruption, tmp_path):
    def fail_halfway(images):
        for count, image in enumerate(images):
            if count == 3:
                assert any(tmp_path.rglob('*.jpg'))  # something was being written
                raise interruption
            yield image

    expected = interruption if isinstance(interruption, type) else OSError
    with pytest.raises(expected):
        make_demo_data('coco', tmp_path / 'coco', **SMALL, progress=fail_halfway)
    assert not any(tmp_path.iterdir())


def test_interrupted_overwrite_keeps_the_old_data(tmp_path):
    out = make_demo_data('imagenet', tmp_path / 'imagenet', images=1, size=(64, 64))
    before = read_tree(out)

    def fail(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo_data('imagenet', out, **SMALL, overwrite=True, progress=fail)
    assert read_tree(out) == before and os.listdir(tmp_path) == ['imagenet']


def test_two_processes_at_once(tmp_path):
    """The second one finds the finished data of the first when it wants to rename its own."""

    def let_the_other_finish(images):
        make_demo_data('coco', tmp_path / 'coco', **SMALL)
        return images

    out = make_demo_data('coco', tmp_path / 'coco', **SMALL, progress=let_the_other_finish)
    assert (out / demo.MANIFEST).is_file() and os.listdir(tmp_path) == ['coco']


def test_remains_of_killed_runs_are_removed_after_a_day(tmp_path):
    old, recent = tmp_path / '.coco.partial-1', tmp_path / '.coco.partial-2'
    old.mkdir()
    recent.mkdir()
    yesterday = time.time() - demo.STALE_AFTER_SECONDS - 60
    os.utime(old, (yesterday, yesterday))
    make_demo_data('coco', tmp_path / 'coco', images=1, size=(64, 64))
    assert sorted(os.listdir(tmp_path)) == ['.coco.partial-2', 'coco']


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(images=0), 'images must be at least 1, not 0'),
        (dict(val_images=0), 'val_images must be at least 1'),
        (dict(seed=-1), 'seed must not be negative'),
        (dict(size=(40, 40)), r'size 40x40 is too small: .* at least 58x58'),
        (dict(size=(640, 0)), 'size 640x0 is too small'),
        (dict(num_classes=0), 'num_classes must be at least 1'),
        (dict(layout='ade20k', num_classes=150), 'does not fit the layout ade20k'),
        (dict(layout='imagenet', num_classes=1000), 'does not fit the layout imagenet'),
        (dict(layout='imagenet', digits_per_image=(1, 2)), 'digits_per_image must be'),
        (dict(digits_per_image=(3, 2)), 'digits_per_image must be two numbers'),
        (dict(digit_size=(0.2, 1.2)), 'digit_size must be two numbers'),
        (dict(mask_format='png'), "mask_format must be 'polygon' or 'rle'"),
        (dict(layout='voc'), "unknown layout 'voc'; known are coco, ade20k, imagenet"),
    ],
)
def test_wrong_parameters(changes, message, tmp_path):
    parameters = dict(layout='coco', out=tmp_path / 'out') | SMALL | changes
    with pytest.raises(ValueError, match=message):
        make_demo_data(**parameters)
    assert not any(tmp_path.iterdir())


def test_unwritable_folder(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r'cannot write demo data to .*file/coco: Not a directory'):
        make_demo_data('coco', tmp_path / 'file' / 'coco', **SMALL)


def test_missing_sources(monkeypatch, tmp_path):
    demo.load_photographs.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(demo, 'find_spec', lambda name: None)
        with pytest.raises(ImportError, match=r'pip install "scikit-learn.*" "scikit-image.*"'):
            make_demo_data('coco', tmp_path / 'coco', **SMALL)
    with monkeypatch.context() as patch:
        patch.setitem(demo.PHOTOGRAPHS, 'val', ('eagle.png',))
        with pytest.raises(FileNotFoundError, match=r'do not ship the photograph eagle\.png'):
            make_demo_data('coco', tmp_path / 'coco', **SMALL)
    assert not any(tmp_path.iterdir())


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['make_demo_data.py', *map(str, arguments)])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        runpy.run_path(str(ROOT / 'tools' / 'make_demo_data.py'), run_name='__main__')
    finally:
        signal.signal(signal.SIGTERM, handler)


def test_tool_writes_what_the_function_writes(generated, monkeypatch, tmp_path, capsys):
    out = tmp_path / 'coco'
    run_tool(monkeypatch, 'coco', '--out', out, '--images', 12, '--val-images', 6,
             '--size', 120, 96)  # fmt: skip
    assert read_tree(out) == read_tree(generated['coco'])
    printed = capsys.readouterr()
    assert '18/18' in printed.err and str(out) in printed.out


def test_tool_reports_errors_in_one_line(generated, monkeypatch):
    for arguments, message in (
        (('--images', 0), 'error: images must be at least 1, not 0'),
        (('--images', 1), 'error: .*/coco holds other demo data .*--overwrite'),
    ):
        with pytest.raises(SystemExit, match=message) as caught:
            run_tool(monkeypatch, 'coco', '--out', generated['coco'], *arguments)
        assert '\n' not in str(caught.value)


def test_terminated_tool_leaves_nothing(monkeypatch, tmp_path):
    def terminate_halfway(images, **kwargs):
        for count, image in enumerate(images):
            if count == 3:
                assert any(tmp_path.rglob('*.jpg'))
                os.kill(os.getpid(), signal.SIGTERM)
            yield image

    def fail(*_):
        pytest.fail('the tool does not handle SIGTERM')

    monkeypatch.setattr('tqdm.tqdm', terminate_halfway)
    handler = signal.signal(signal.SIGTERM, fail)
    try:
        with pytest.raises(SystemExit) as caught:
            run_tool(monkeypatch, 'coco', '--out', tmp_path / 'coco', '--images', 10)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert caught.value.code == 128 + signal.SIGTERM
    assert not any(tmp_path.iterdir())
