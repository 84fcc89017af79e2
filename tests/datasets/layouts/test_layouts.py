"""What holds for every layout."""

import json

import pytest
from helpers import SMALL_DEMO_DATA, read_tree
from mmengine.config import Config

from unireplknet_mm.datasets import layouts, make_demo_data, use_demo_data
from unireplknet_mm.datasets.demo import MANIFEST
from unireplknet_mm.datasets.drawing import PHOTOGRAPHS
from unireplknet_mm.datasets.layouts import LAYOUTS, layout_of
from unireplknet_mm.datasets.layouts.drawn import DrawnLayout
from unireplknet_mm.errors import ArgumentError, UserError
from unireplknet_mm.launch import check_data

DRAWN = [name for name, layout in LAYOUTS.items() if isinstance(layout, DrawnLayout)]
TONES = """
from unireplknet_mm.datasets.layouts.base import SPLITS, Layout
from unireplknet_mm.errors import ArgumentError


class Tones(Layout):
    name = 'tones'
    dataset_types = ('Tones',)
    samples = 'clips'
    files = ('{train,val}/*.txt',)
    title = 'Ten Tones'
    source = 'https://example.org/tones'
    defaults = dict(pitch=1.0)

    def add_options(self, parser):
        parser.add_argument('--pitch', type=float)

    def check(self, parameters):
        if parameters['pitch'] <= 0:
            raise ArgumentError(f'pitch must be positive, not {parameters["pitch"]}')

    def check_sources(self):
        pass

    def write_demo(self, root, parameters, progress):
        counts = (parameters['images'], parameters['val_images'])
        for split, count in zip(SPLITS, counts):
            (root / split).mkdir()
            for index in progress(list(range(count))):
                (root / split / f'{index}.txt').write_text(str(parameters['pitch']))
        return {}

    def parameters_for(self, model, datasets):
        return dict(pitch=model['pitch'])

    def dataset_settings(self, split, parameters):
        return dict(folder=split)


LAYOUT = Tones()
"""


@pytest.mark.parametrize('layout', DRAWN)
def test_same_seed_same_files(layout, generated, tmp_path):
    again = make_demo_data(layout, tmp_path / 'again', **SMALL_DEMO_DATA)
    assert read_tree(again) == read_tree(generated[layout])
    other = make_demo_data(layout, tmp_path / 'other', **SMALL_DEMO_DATA, seed=1)
    assert read_tree(other) != read_tree(generated[layout])


@pytest.mark.parametrize('layout', DRAWN)
def test_larger_data_set_starts_with_the_smaller(layout, generated, tmp_path):
    parameters = SMALL_DEMO_DATA | dict(images=5, val_images=2)
    smaller = read_tree(make_demo_data(layout, tmp_path / layout, **parameters))
    larger = read_tree(generated[layout])
    images = [name for name in smaller if name.lower().endswith(('jpg', 'jpeg', 'png'))]
    assert len(images) == (14 if layout in ('ade20k', 'cityscapes', 'folders') else 7)
    assert all(smaller[name] == larger[name] for name in images)
    if layout == 'coco':
        name = 'annotations/instances_train2017.json'
        few, many = json.loads(smaller[name]), json.loads(larger[name])
        assert few['annotations'] == many['annotations'][: len(few['annotations'])]


@pytest.mark.parametrize('layout', DRAWN)
def test_validation_shares_no_source_with_training(layout, generated):
    sources = json.loads((generated[layout] / MANIFEST).read_text())['sources']
    for kind in ('photographs', 'scans'):
        train, val = set(sources['train'][kind]), set(sources['val'][kind])
        assert train and val and not train & val
    assert set(sources['train']['photographs']) <= set(PHOTOGRAPHS['train'])
    assert set(sources['val']['photographs']) <= set(PHOTOGRAPHS['val'])


def test_number_of_classes(tmp_path):
    out = make_demo_data('coco', tmp_path / 'many', **SMALL_DEMO_DATA, num_classes=80)
    categories = json.loads((out / 'annotations/instances_val2017.json').read_text())['categories']
    assert [category['id'] for category in categories] == list(range(1, 81))
    assert [category['name'] for category in categories[8:11]] == ['eight', 'nine', 'unused_10']
    out = make_demo_data('coco', tmp_path / 'few', **SMALL_DEMO_DATA, num_classes=2)
    document = json.loads((out / 'annotations/instances_train2017.json').read_text())
    assert [category['name'] for category in document['categories']] == ['zero', 'one']
    assert {annotation['category_id'] for annotation in document['annotations']} == {1, 2}
    out = make_demo_data('imagenet', tmp_path / 'classes', **SMALL_DEMO_DATA, num_classes=3)
    assert sorted(path.name for path in (out / 'train').iterdir()) == ['0_zero', '1_one', '2_two']


def test_every_data_set_type_has_one_layout():
    types = [name for layout in LAYOUTS.values() for name in layout.dataset_types]
    assert len(types) == len(set(types))
    assert {'CocoDataset', 'ADE20KDataset', 'CityscapesDataset', 'ImageNet', 'ImageNet21k'} <= set(
        types
    )
    assert all(layout_of(name).name in LAYOUTS for name in types)
    assert layout_of('LVISV1Dataset') is None


def test_a_new_layout_is_a_file_and_nothing_else(tmp_path, monkeypatch):
    """Of another kind of data than images, too."""
    (tmp_path / 'module').mkdir()
    (tmp_path / 'module' / 'tones.py').write_text(TONES)
    monkeypatch.setattr(layouts, '__path__', [*layouts.__path__, str(tmp_path / 'module')])
    tones = layouts._find_layouts()['tones']
    monkeypatch.setitem(LAYOUTS, 'tones', tones)

    out = make_demo_data('tones', tmp_path / 'tones', 3, pitch=2.5)
    assert (out / 'train' / '2.txt').read_text() == '2.5'
    assert (out / 'val' / '0.txt').read_text() == '2.5'
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest['parameters']['pitch'] == 2.5
    with pytest.raises(ArgumentError, match=r'pitch must be positive, not -1'):
        make_demo_data('tones', tmp_path / 'other', 3, pitch=-1)

    dataset = dict(type='Tones', data_root='data/tones')
    cfg = Config(dict(model=dict(pitch=8), train_dataloader=dict(dataset=dataset)))
    with pytest.raises(UserError) as error:
        check_data(cfg, 'train')
    assert 'Ten Tones is at https://example.org/tones; expected are data/tones/' in str(error.value)
    use_demo_data(cfg, tmp_path / 'demo')
    assert cfg.train_dataloader.dataset.data_root == f'{tmp_path}/demo/tones-8pitch-4train-2val/'
    assert cfg.train_dataloader.dataset.folder == 'train'
    assert len(list((tmp_path / 'demo').glob('tones-8pitch-4train-2val/train/*.txt'))) == 4
