"""The layouts of audio: what they write is what the data sets read, with the labels that were drawn."""

import wave

import numpy as np
import pytest
import torch
from helpers import read_tree
from mmengine.config import Config
from mmengine.registry import DATASETS

import unireplknet_mm.modalities.audio  # noqa: F401
from unireplknet_mm.datasets import make_demo_data, use_demo_data
from unireplknet_mm.datasets.layouts import LAYOUTS
from unireplknet_mm.datasets.layouts.recorded import RecordedLayout
from unireplknet_mm.datasets.sounds import draw_sound
from unireplknet_mm.errors import UserError
from unireplknet_mm.modalities.audio.filterbank import log_mel

RECORDED = {
    layout.dataset_types[0]: name
    for name, layout in LAYOUTS.items()
    if isinstance(layout, RecordedLayout)
}
SECONDS = dict(SpeechCommands=1.0, AudioSet=10.0, ESC50=5.0)


def read(kind: str, root, split: str, **parameters):
    settings = LAYOUTS[RECORDED[kind]].dataset_settings(split, parameters)
    return DATASETS.build(dict(type=kind, data_root=str(root), **settings))


def test_there_is_a_layout_for_every_data_set_of_audio():
    assert sorted(RECORDED) == ['AudioSet', 'ESC50', 'RecordingFolder', 'SpeechCommands']


@pytest.mark.parametrize('kind', RECORDED)
def test_the_data_set_reads_what_was_written(kind, tmp_path):
    parameters = {} if kind == 'SpeechCommands' else dict(num_classes=3)
    root = make_demo_data(RECORDED[kind], tmp_path / 'a', 5, 2, **parameters)
    seen = set()
    for split, count in (('train', 5), ('val', 2)):
        dataset = read(kind, root, split, **parameters)
        assert len(dataset) == count
        classes = dataset.metainfo['classes']
        assert len(classes) == parameters.get('num_classes', 35)
        for i in range(count):
            info = dataset.get_data_info(i)
            seen.add(info['recording_path'])
            labels = np.atleast_1d(info['gt_label'])
            assert 0 <= labels.min() <= labels.max() < len(classes)
            with wave.open(info['recording_path']) as file:
                seconds = file.getnframes() / file.getframerate()
            assert seconds == SECONDS.get(kind, seconds) > 0.2
    assert len(seen) == 7, 'a recording is in both splits'
    again = make_demo_data(RECORDED[kind], tmp_path / 'b', 5, 2, **parameters)
    assert read_tree(again) == read_tree(root)
    few = make_demo_data(RECORDED[kind], tmp_path / 'c', 3, 1, **parameters)
    trees = read_tree(few), read_tree(root)
    recordings = [n for n in trees[0] if n.endswith('.wav') and 'noise' not in n]
    assert len(recordings) == 4
    assert all(trees[0][name] == trees[1][name] for name in recordings)


def test_a_label_sounds_like_itself():
    """Two drawings of a label are closer to each other than to any other label's."""
    spectra = np.array(
        [
            [heard(draw_sound(rng, label, 1.0, 16000)) for label in range(8)]
            for rng in (np.random.default_rng(0), np.random.default_rng(1))
        ]
    )
    centered = spectra - spectra.mean((0, 1))
    first, second = centered / np.linalg.norm(centered, axis=-1, keepdims=True)
    assert ((first @ second.T).argmax(1) == np.arange(8)).all()


def heard(sound: np.ndarray) -> np.ndarray:
    return log_mel(torch.from_numpy(sound).float(), 16000, 80).flatten().numpy()


@pytest.mark.parametrize('parameters', [dict(seed=-1), dict(num_classes=0)])
def test_parameters_that_make_no_sense(tmp_path, parameters):
    with pytest.raises(UserError, match=next(iter(parameters))):
        make_demo_data('esc50', tmp_path / 'a', 2, **parameters)


def test_demo_data_take_the_number_of_classes_of_the_head(tmp_path):
    cfg = Config(
        dict(
            model=dict(head=dict(num_classes=4)),
            train_dataloader=dict(dataset=dict(type='RecordingFolder', data_root='mine')),
        )
    )
    use_demo_data(cfg, tmp_path)
    dataset = cfg.train_dataloader.dataset
    assert dataset.data_root == f'{tmp_path}/recording_folder-4classes-4train-2val/'
    assert len(dataset.classes) == 4
    assert [DATASETS.build(dataset).get_data_info(i)['gt_label'] for i in range(4)] == [0, 1, 2, 3]
