"""Labels mean the same in training, validation and test, and the head has as many classes."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import load_config
from mmengine.registry import HOOKS, DefaultScope
from mmpretrain.datasets import CustomDataset

from unireplknet_mm.engine.randomness import SeededDataset
from unireplknet_mm.engine.same_classes import SameClassesHook
from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.audio import RecordingFolder
from unireplknet_mm.modalities.point_cloud import PointCloudFolder
from unireplknet_mm.modalities.video import VideoFolder, VideoList

CONFIGS = Path(__file__).parents[2] / 'configs'
FOLDERS = dict(wav=RecordingFolder, mp4=VideoFolder, ply=PointCloudFolder)


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


def runner(train=None, val=None, test=None, num_classes=3, resume=False):
    loaders = [
        None if dataset is None else SimpleNamespace(dataset=SeededDataset(dataset))
        for dataset in (train, val, test)
    ]
    return SimpleNamespace(
        _resume=resume,
        logger=logging.getLogger('test_same_classes'),
        train_dataloader=loaders[0],
        val_dataloader=loaders[1],
        val_loop=loaders[1],
        test_dataloader=loaders[2],
        model=SimpleNamespace(head=SimpleNamespace(num_classes=num_classes)),
    )


def make_folder(folder: Path, suffix: str, names: str, classes=None):
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / f'1.{suffix}').touch()
    return FOLDERS[suffix](data_root=str(folder), classes=classes)


def loaded(hook, **meta):
    hook.after_load_checkpoint(None, dict(meta=meta, state_dict={}))
    return hook


@pytest.mark.parametrize('suffix', FOLDERS)
def test_a_folder_that_lacks_a_class_is_refused(suffix, tmp_path):
    train = make_folder(tmp_path / 'train', suffix, 'abc')
    part = make_folder(tmp_path / 'part', suffix, 'ac')
    hook = SameClassesHook()
    with pytest.raises(ArgumentError, match=r'of validation differ from those of training \(b\)'):
        hook.before_train(runner(train, part))
    hook.before_test(runner(test=part))  # without a checkpoint, nothing is known
    loaded(hook, dataset_meta=dict(train.metainfo))
    wanted = r"of the test differ from those of the checkpoint \(b\).* classes=\['a', 'b', 'c'\]"
    with pytest.raises(ArgumentError, match=wanted):
        hook.before_test(runner(test=part))
    stated = type(train)(data_root=str(tmp_path / 'part'), classes=['a', 'b', 'c'])
    hook.before_test(runner(test=stated))
    hook.before_train(runner(train, stated))
    hook.before_train(runner(train))
    swapped = type(train)(data_root=str(tmp_path / 'part'), classes=['c', 'b', 'a'])
    with pytest.raises(ArgumentError, match='those of the checkpoint, in their order'):
        hook.before_test(runner(test=swapped))
    loaded(hook).before_test(runner(test=swapped))  # weights that state no classes


def image_folder(folder: Path, names: str) -> CustomDataset:
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / '1.jpg').touch()
    return CustomDataset(data_root=str(folder))


def test_folders_of_images(tmp_path):
    train = image_folder(tmp_path / 'train', 'abc')
    part = image_folder(tmp_path / 'part', 'ac')
    hook = loaded(SameClassesHook(), dataset_meta=dict(train.metainfo))
    advice = r"\(b\).* give it a folder for each of \['a', 'b', 'c'\] and for no other; an empty one will do"
    for check, datasets in (
        (hook.before_train, dict(train=train, val=part)),
        (hook.before_train, dict(train=part, resume=True)),
        (hook.before_test, dict(test=part)),
    ):
        with pytest.raises(ArgumentError, match=advice):
            check(runner(**datasets))
    (tmp_path / 'part/b').mkdir()
    part = CustomDataset(data_root=str(tmp_path / 'part'))
    hook.before_test(runner(test=part))
    hook.before_train(runner(part, part, resume=True))


def test_a_training_with_weights_of_other_classes(tmp_path, caplog):
    """Goes on only with the same ones; may begin with any, and says where the head is of others."""
    train = make_folder(tmp_path, 'wav', 'abc')
    for learnt, resumes, warning in (
        ('abc', True, None),
        ('', True, None),
        ('abc', False, None),
        ('abcd', False, None),  # the head has another shape, which a table of the weights shows
        ('abd', False, 'other classes (c, d)'),
        ('bac', False, 'other classes, in their order'),
    ):
        hook = loaded(SameClassesHook(), dataset_meta=dict(classes=tuple(learnt)))
        caplog.clear()
        hook.before_train(runner(train, resume=resumes))
        assert (warning in caplog.text) if warning else not caplog.records, learnt
    for learnt in ('abcd', 'abd', 'bac'):
        hook = loaded(SameClassesHook(), dataset_meta=dict(classes=tuple(learnt)))
        with pytest.raises(ArgumentError, match='differ from those of the checkpoint that it goes'):
            hook.before_train(runner(train, resume=True))


def test_classes_that_are_numbers():
    dataset = SimpleNamespace(metainfo=dict(classes=[0, 1, 'x']))
    hook = loaded(SameClassesHook(), dataset_meta=dict(classes=('0', '1', 'x')))
    hook.before_test(runner(test=dataset))
    with pytest.raises(ArgumentError, match=r'\(2, x\)'):
        loaded(hook, dataset_meta=dict(classes=(0, 1, 2))).before_test(runner(test=dataset))


def test_the_labels_of_a_list_are_compared_with_the_head(tmp_path):
    (tmp_path / 'good.txt').write_text('a.mp4 0\nb.mp4 -1\nc.mp4 2')
    (tmp_path / 'bad.txt').write_text('a.mp4 0\n\nb.mp4 3')
    good, bad = (
        VideoList(data_root=str(tmp_path), ann_file=f'{name}.txt') for name in ('good', 'bad')
    )
    hook = loaded(SameClassesHook(), dataset_meta=dict(classes=('x', 'y', 'z')))
    hook.before_train(runner(good, good))
    hook.before_test(runner(test=good))
    message = r'bad.txt, line 3: the label 3 .* num_classes=3'
    for check, datasets in (
        (hook.before_train, dict(train=bad)),
        (hook.before_train, dict(train=good, val=bad)),
        (hook.before_test, dict(test=bad)),
    ):
        with pytest.raises(ArgumentError, match=message):
            check(runner(**datasets))
        check(runner(**datasets, num_classes=4))


def test_classes_and_labels_beyond_the_head(tmp_path):
    train = make_folder(tmp_path, 'wav', 'abc')
    with pytest.raises(ArgumentError, match=r'c/1.wav: the label 2 .* num_classes=2'):
        SameClassesHook().before_train(runner(train, num_classes=2))


def test_labels_of_several_classes_and_data_sets_of_others():
    class Several(list):
        metainfo = dict(classes=None)

        def get_data_info(self, index):
            return self[index]

    samples = Several([dict(gt_label=[]), dict(gt_label=[0, 2]), {}])
    SameClassesHook().before_train(runner(samples))
    samples.append(dict(gt_label=[5, 1]))
    with pytest.raises(ArgumentError, match='sample 3: the label 5'):
        SameClassesHook().before_train(runner(samples))
    SameClassesHook().before_train(runner([1, 2]))


@pytest.mark.parametrize(
    'path', sorted((CONFIGS / '_base_').glob('*_runtime.py')), ids=lambda path: path.stem
)
def test_every_task_that_classifies_has_the_hook(path):
    hook = load_config(path).default_hooks.get('same_classes')
    has_labels = path.stem in {
        *('cls_runtime', 'cls_runtime_pretraining'),
        *('audio_runtime', 'video_runtime', 'point_cloud_runtime'),
    }
    assert (hook is not None) == has_labels
    if has_labels:
        assert isinstance(HOOKS.build(hook), SameClassesHook)
