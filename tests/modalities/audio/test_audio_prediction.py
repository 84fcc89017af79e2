"""What `tools/predict.py` asks of audio: a file becomes a sample of the test pipeline, a result a picture."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from helpers import load_config
from matplotlib.figure import Figure
from mmengine.registry import TRANSFORMS
from mmpretrain.structures import DataSample
from tones import RATE, tone

from unireplknet_mm.launch.predicting import InputDataset, Predictor, read_result
from unireplknet_mm.modalities.audio import Recordings, drawing
from unireplknet_mm.modalities.audio.filterbank import log_mel
from unireplknet_mm.modalities.audio.prediction import _join
from unireplknet_mm.modalities.audio.recordings import read_recording
from unireplknet_mm.modalities.inputs import find_inputs, find_kind
from unireplknet_mm.modalities.predictions import ClassPrediction, Labels, Part, mean_of_parts

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
    assert kind.explain(prediction) is None
    picture = kind.draw(prediction, transforms, {})
    assert picture.dtype == np.uint8 and picture.shape == (500, 900, 3)
    other = ClassPrediction(path, sample['inputs'].flip(0), scores, Labels(['a', '$b$', 'c']))
    assert (kind.draw(other, transforms, {}) != picture).any()
    cached = dict(type='Cached', folder=str(tmp_path), transforms=pipeline[:2])
    within = [TRANSFORMS.build(cached), *transforms[2:]]
    assert np.array_equal(kind.draw(prediction, within, {}), picture)


def test_a_recording_longer_than_the_input_is_predicted_in_parts(tmp_path):
    """All of it is heard: 3.98 s in four parts of 1.28 s, whose scores are averaged."""
    path = tmp_path / 'long.wav'
    samples = tone(4.0)
    samples[: 2 * RATE] *= 0.1
    soundfile.write(path, samples, RATE)
    cfg = load_config(ROOT / 'configs/audio/unireplknet_s_speech_commands.py')
    dataset = InputDataset([path], Recordings(), cfg.test_dataloader.dataset.pipeline, cfg)
    spans, inputs, rest = dataset[0]
    assert [span.start for span in spans] == pytest.approx([0, 0.9, 1.8, 2.7])
    assert spans[-1].end == pytest.approx(3.98) and len(rest) == 4
    bank = dataset.transforms[1]
    whole = (log_mel(read_recording(path, 16000), 16000) - bank.mean) / (2 * bank.std)
    for span, part in zip(spans, inputs, strict=True):
        start = round(100 * span.start)
        assert torch.equal(part, whole[start : start + 128])

    class Model(torch.nn.Module):
        """Says 1 where it is loud."""

        head = None

        def test_step(self, data):
            loud = [(part > 0).float().mean() for part in data['inputs']]
            scores = [torch.stack([1 - share, share]) for share in loud]
            return [DataSample().set_pred_score(score) for score in scores]

    (result,) = Predictor(Model(), cfg, batch_size=3)(dataset)
    of_parts = torch.stack([part.sample.pred_score for part in result.parts])
    assert torch.allclose(result.sample.pred_score, of_parts.mean(0))
    assert result.sample.pred_label.tolist() == [result.sample.pred_score.argmax().item()]
    prediction = read_result(result, Labels(['soft', 'loud']), None, None)
    record = prediction.record()
    assert [part['start'] for part in record['parts']] == [span.start for span in spans]
    assert of_parts[3, 1] > of_parts[0, 1]
    kind = Recordings()
    assert kind.explain(prediction) == (
        'longer than the 1.28 s of an input: the mean of 4 parts from 0.00 to 3.98 s'
    )
    picture = kind.draw(prediction, dataset.transforms, {})
    alone = dataclasses.replace(prediction, parts=())
    assert picture.shape == (500, 900, 3)
    assert (kind.draw(alone, dataset.transforms, {}) != picture).any()


@pytest.mark.parametrize('held', [2, 3], ids=['in front of FitFrames', 'with FitFrames'])
def test_a_cache_does_not_change_the_parts(tmp_path, held):
    path = tmp_path / 'long.wav'
    soundfile.write(path, np.concatenate([np.zeros(RATE), tone(4.0)]), RATE)
    cfg = load_config(ROOT / 'configs/audio/unireplknet_s_speech_commands.py')
    pipeline = list(cfg.test_dataloader.dataset.pipeline)
    assert [step['type'] for step in pipeline[:3]] == ['LoadRecording', 'LogMel', 'FitFrames']
    pipeline.insert(1, dict(type='TrimSilence'))
    inner = dict(type='Cached', folder=str(tmp_path / 'cache'), transforms=pipeline[: held + 1])
    outer = dict(type='Cached', folder=str(tmp_path / 'cache'), transforms=[inner])
    expected = InputDataset([path], Recordings(), pipeline, cfg)[0]
    assert len(expected[0]) == 4
    for cached in (inner, outer):
        within = InputDataset([path], Recordings(), [cached, *pipeline[held + 1 :]], cfg)
        for _ in range(2):  # the second time from the cache, where there is one
            spans, inputs, _rest = within[0]
            assert spans == expected[0] and torch.equal(inputs, expected[1])
    # Only what is in front of FitFrames can be kept: by the inner cache, and by the outer one.
    assert len(list(tmp_path.rglob('*.npz'))) == (2 if held == 2 else 0)


def test_parts_lie_where_they_are_in_the_recording(tmp_path):
    """Also where the silence before them was cut off."""
    path = tmp_path / 'late.wav'
    soundfile.write(path, np.concatenate([np.zeros(2 * RATE), tone(2.0), np.zeros(RATE)]), RATE)
    cfg = load_config(ROOT / 'configs/audio/unireplknet_s_speech_commands.py')
    pipeline = list(cfg.test_dataloader.dataset.pipeline)
    pipeline.insert(1, dict(type='TrimSilence', margin=0.1))
    dataset = InputDataset([path], Recordings(), pipeline, cfg)
    spans, inputs, _ = dataset[0]
    assert len(spans) == len(inputs) == 2
    assert spans[0].start == pytest.approx(1.9, abs=0.03)
    assert spans[1].end == pytest.approx(4.1, abs=0.05)
    parts = [Part(span, part, None) for span, part in zip(spans, inputs, strict=True)]
    whole = _join([(part.span, part.inputs) for part in parts])
    assert torch.equal(whole[:90], inputs[0][:90]) and torch.equal(whole[-128:], inputs[1])


def test_labels_of_parts_are_those_of_the_head():
    scores = [torch.tensor([0.9, 0.4, 0.0]), torch.tensor([0.5, 0.4, 0.3])]
    samples = [DataSample().set_pred_score(score) for score in scores]
    for settings, expected in (
        (dict(thr=0.3, topk=None), [0, 1]),
        (dict(thr=None, topk=2), [0, 1]),
        (dict(thr=None, topk=(1,)), [0]),  # of one label, whose `topk` is of its accuracy
    ):
        merged = mean_of_parts(samples, SimpleNamespace(**settings))
        assert merged.pred_score.tolist() == pytest.approx([0.7, 0.4, 0.15])
        assert merged.pred_label.tolist() == expected


@pytest.fixture
def draw(monkeypatch):
    """`draw_recording`, and the axes of what it drew: waveform and spectrogram."""
    figures = []

    def draw(*arguments):
        def make(**settings):
            figures.append(Figure(**settings))
            return figures[-1]

        monkeypatch.setattr(drawing, 'Figure', make)
        return drawing.draw_recording(*arguments), *figures[-1].axes[:2]

    return draw


def test_the_picture_of_a_long_recording(draw):
    """It is drawn in columns, with a click in one of them, and names no more parts than can be read."""
    waveform = 0.1 * torch.randn(2_000_000, generator=torch.Generator().manual_seed(0))
    waveform[1_000_000] = 5.0
    spectrogram = torch.arange(25_001.0)[:, None].expand(-1, 16)
    parts = [(start, 'yes') for start in np.arange(0, 250, 0.5)]
    picture, upper, lower = draw(waveform, 8000, spectrogram, ['yes 1.000'], 'long', parts)
    assert picture.shape == (500, 900, 3)
    (outline,) = (path.vertices for path in upper.collections[0].get_paths())
    assert len(outline) < 5000 and outline[:, 1].max() == 5.0
    assert outline[outline[:, 1].argmax(), 0] == pytest.approx(125, abs=0.2)
    assert 30 < len(lower.lines) <= 41
    columns = lower.images[0].get_array()[0]
    assert 2000 <= len(columns) < 4000 and columns[-1] == 24_998  # of the last five frames
    assert (np.diff(columns) > 0).all() and columns.mean() == pytest.approx(12_500, rel=1e-3)


def test_a_short_recording_is_drawn_sample_by_sample(draw):
    waveform = torch.from_numpy(tone())
    _, upper, lower = draw(waveform, RATE, torch.zeros(98, 16), [], '', [(0.0, 'a'), (0.5, 'b')])
    assert len(upper.lines[0].get_xdata()) == RATE
    assert len(lower.lines) == 2 and lower.images[0].get_array().shape == (16, 98)
