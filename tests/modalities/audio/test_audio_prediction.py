"""What `tools/predict.py` asks of audio: a file becomes a sample of the test pipeline, a result a picture."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from helpers import load_config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from mmpretrain.structures import DataSample
from tones import RATE, tone

from unireplknet_mm.modalities.audio import Recordings
from unireplknet_mm.modalities.audio.filterbank import log_mel
from unireplknet_mm.modalities.audio.recordings import read_recording
from unireplknet_mm.modalities.inputs import find_inputs, find_kind
from unireplknet_mm.modalities.predictions import ClassPrediction, Labels

ROOT = Path(__file__).resolve().parents[3]


def test_recordings_are_predicted_and_drawn(recordings, tmp_path):
    cfg = load_config(ROOT / 'configs/audio/unireplknet_s_speech_commands.py')
    pipeline = cfg.test_dataloader.dataset.pipeline
    kind = find_kind(pipeline)
    assert isinstance(kind, Recordings)
    names = {path.name for path, _ in find_inputs([recordings], kind, False)[0]}
    assert names == {path.name for path in recordings.iterdir()}
    path = recordings / 'plain.flac'
    transforms = [TRANSFORMS.build(step) for step in pipeline]
    sample = kind.sample(path, 0)
    for transform in transforms:
        sample = transform(sample)
    bank = transforms[1]
    expected = (log_mel(read_recording(path, 16000), 16000) - bank.mean) / (2 * bank.std)
    assert torch.equal(sample['inputs'][:98], expected) and not sample['inputs'][98:].any()
    scores = DataSample().set_pred_score(torch.tensor([0.1, 0.7, 0.2]))
    prediction = ClassPrediction(path, sample['inputs'], scores, Labels(['a', '$b$', 'c']))
    assert kind.find_restriction(prediction) is None
    picture = kind.draw(prediction, transforms, {})
    assert picture.dtype == np.uint8 and picture.shape == (500, 900, 3)
    other = ClassPrediction(path, sample['inputs'].flip(0), scores, Labels(['a', '$b$', 'c']))
    assert (kind.draw(other, transforms, {}) != picture).any()
    cached = dict(type='Cached', folder=str(tmp_path), transforms=pipeline[:2])
    within = [TRANSFORMS.build(cached), *transforms[2:]]
    assert np.array_equal(kind.draw(prediction, within, {}), picture)


def test_a_recording_longer_than_the_input_is_said_to_be_cut(tmp_path):
    soundfile.write(tmp_path / 'long.wav', tone(4.0), RATE)
    cfg = load_config(ROOT / 'configs/audio/unireplknet_s_speech_commands.py')
    packed = Compose([TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline])(
        Recordings().sample(tmp_path / 'long.wav', 0)
    )
    scores = packed['data_samples'].set_pred_score(torch.tensor([0.1, 0.9]))
    prediction = ClassPrediction(
        tmp_path / 'long.wav', packed['inputs'], scores, Labels(['a', 'b'])
    )
    assert Recordings().find_restriction(prediction).startswith('judged by 1.28 of its 3.98 s')
