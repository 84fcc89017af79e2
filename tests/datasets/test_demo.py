"""How demo data come to the disk: whole or not at all, reused, never over anything else."""

import os
import time

import pytest
from helpers import SMALL_DEMO_DATA, read_tree

from unireplknet_mm.datasets import drawing, make_demo_data
from unireplknet_mm.datasets.demo import MANIFEST, STALE_AFTER_SECONDS
from unireplknet_mm.datasets.layouts import LAYOUTS
from unireplknet_mm.errors import UserError


def test_existing_data_are_reused(generated, monkeypatch):
    monkeypatch.setattr(LAYOUTS['coco'], 'write_demo', None)  # writing would fail
    before = read_tree(generated['coco'])
    assert make_demo_data('coco', generated['coco'], **SMALL_DEMO_DATA) == generated['coco']
    assert read_tree(generated['coco']) == before


def test_other_data_are_replaced_only_on_demand(tmp_path):
    out = tmp_path / 'imagenet'
    make_demo_data('imagenet', out, images=2, val_images=1, size=(64, 64))
    with pytest.raises(FileExistsError, match=r'holds other .* \(images=2\).*overwrite') as error:
        make_demo_data('imagenet', out, images=3, val_images=1, size=(64, 64))
    assert isinstance(error.value, UserError)
    make_demo_data('imagenet', out, images=3, val_images=1, size=(64, 64), overwrite=True)
    assert len(list(out.glob('train/*/*.JPEG'))) == 3
    assert os.listdir(tmp_path) == ['imagenet']


def test_data_of_an_older_version_are_replaced(tmp_path, monkeypatch):
    arguments = dict(layout='imagenet', out=tmp_path / 'imagenet', images=1, size=(64, 64))
    with monkeypatch.context() as patch:
        patch.setattr(LAYOUTS['imagenet'], 'version', LAYOUTS['imagenet'].version - 1)
        out = make_demo_data(**arguments)
    before = read_tree(out)
    make_demo_data(**arguments)
    after = read_tree(out)
    assert before.pop(MANIFEST) != after.pop(MANIFEST)
    assert before == after and os.listdir(tmp_path) == ['imagenet']


def test_foreign_folder_is_never_replaced(tmp_path):
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own' / 'thesis.txt').write_text('three years')
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match='is not demo data') as error:
            make_demo_data('coco', tmp_path / 'own', **SMALL_DEMO_DATA, overwrite=overwrite)
        assert isinstance(error.value, UserError)
    assert (tmp_path / 'own' / 'thesis.txt').read_text() == 'three years'


def test_empty_folder_and_link_are_filled(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'disk')
    out = make_demo_data('imagenet', tmp_path / 'link', images=1, size=(64, 64))
    assert out == tmp_path / 'link' and (tmp_path / 'disk' / MANIFEST).is_file()


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
        make_demo_data('coco', tmp_path / 'coco', **SMALL_DEMO_DATA, progress=fail_halfway)
    assert not any(tmp_path.iterdir())


def test_interrupted_overwrite_keeps_the_old_data(tmp_path):
    out = make_demo_data('imagenet', tmp_path / 'imagenet', images=1, size=(64, 64))
    before = read_tree(out)

    def fail(images):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo_data('imagenet', out, **SMALL_DEMO_DATA, overwrite=True, progress=fail)
    assert read_tree(out) == before and os.listdir(tmp_path) == ['imagenet']


def test_two_processes_at_once(tmp_path):
    """The second one finds the finished data of the first when it wants to rename its own."""

    def let_the_other_finish(images):
        make_demo_data('coco', tmp_path / 'coco', **SMALL_DEMO_DATA)
        return images

    out = make_demo_data(
        'coco', tmp_path / 'coco', **SMALL_DEMO_DATA, progress=let_the_other_finish
    )
    assert (out / MANIFEST).is_file() and os.listdir(tmp_path) == ['coco']


def test_remains_of_killed_runs_are_removed_after_a_day(tmp_path):
    old, recent = tmp_path / '.coco.partial-1', tmp_path / '.coco.partial-2'
    old.mkdir()
    recent.mkdir()
    yesterday = time.time() - STALE_AFTER_SECONDS - 60
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
        (dict(size=(640, 480, 3)), 'size must be width and height'),
        (dict(size=(640, 0)), 'size 640x0 is too small'),
        (dict(num_classes=0), 'num_classes must be at least 1'),
        (dict(layout='ade20k', num_classes=150), 'num_classes=150 does not fit the layout ade20k'),
        (
            dict(layout='imagenet', num_classes=1000),
            'num_classes=1000 does not fit the layout imagenet',
        ),
        (dict(layout='imagenet', digits_per_image=(1, 2)), 'digits_per_image must be'),
        (dict(digits_per_image=(3, 2)), 'digits_per_image must be two numbers'),
        (dict(digit_size=(0.2, 1.2)), 'digit_size must be two numbers'),
        (dict(mask_format='png'), "mask_format must be 'polygon' or 'rle'"),
        (
            dict(layout='lvis'),
            "unknown layout 'lvis'; known are ade20k, audioset, cityscapes, coco",
        ),
        (dict(sizes=(64, 64)), r'layout coco have no sizes; they have size, seed, num_classes'),
    ],
)
def test_wrong_parameters(changes, message, tmp_path):
    parameters = dict(layout='coco', out=tmp_path / 'out') | SMALL_DEMO_DATA | changes
    with pytest.raises(ValueError, match=message) as error:
        make_demo_data(**parameters)
    assert isinstance(error.value, UserError)
    assert not any(tmp_path.iterdir())


def test_unwritable_folder(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r'demo data to .*file/coco: Not a directory') as error:
        make_demo_data('coco', tmp_path / 'file' / 'coco', **SMALL_DEMO_DATA)
    assert isinstance(error.value, UserError)


def test_missing_sources(monkeypatch, tmp_path):
    drawing.load_photographs.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(drawing, 'find_spec', lambda name: None)
        with pytest.raises(ImportError, match=r'pip install "scikit-learn.*" "scik') as error:
            make_demo_data('coco', tmp_path / 'coco', **SMALL_DEMO_DATA)
        assert isinstance(error.value, UserError)
    with monkeypatch.context() as patch:
        patch.setitem(drawing.PHOTOGRAPHS, 'val', ('eagle.png',))
        with pytest.raises(FileNotFoundError, match=r'the photograph eagle\.png') as error:
            make_demo_data('coco', tmp_path / 'coco', **SMALL_DEMO_DATA)
        assert isinstance(error.value, UserError)
    assert not any(tmp_path.iterdir())
