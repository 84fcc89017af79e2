"""Reading: every kind of file, parts of files, and what cannot be used."""

import time

import numpy as np
import pytest
import soundfile
import torch
from tones import RATE, tone

from unireplknet_mm.errors import UserError
from unireplknet_mm.modalities.audio.filterbank import log_mel
from unireplknet_mm.modalities.audio.recordings import (
    LARGEST_AMPLITUDE,
    LoadRecording,
    read_recording,
)

EXACT, LOSSY = 1e-4, 0.05


@pytest.mark.parametrize(
    ('name', 'tolerance'), [('plain.wav', EXACT), ('plain.flac', EXACT), ('plain.ogg', LOSSY)]
)
def test_formats(recordings, name, tolerance):
    waveform = read_recording(recordings / name, RATE)
    assert waveform.shape == (RATE,) and waveform.dtype == torch.float32
    assert (waveform - torch.from_numpy(tone())).abs().max() < tolerance


def test_stereo_at_another_rate_is_mixed_and_resampled(recordings):
    waveform = read_recording(recordings / 'stereo.wav', RATE)
    assert waveform.shape == (RATE,)
    inner = slice(100, -100)  # the ends ring
    assert (waveform - torch.from_numpy(tone()) / 2)[inner].abs().max() < 1e-3


def test_a_tone_above_half_the_new_rate_does_not_fold_back(tmp_path):
    soundfile.write(tmp_path / 'high.wav', tone(hertz=7000, rate=48000), 48000)
    waveform = read_recording(tmp_path / 'high.wav', 8000)
    assert waveform[100:-100].abs().max() < 0.01


def test_rates_with_no_common_factor_take_little(tmp_path):
    """11,127 and 16,000 Hz: a table of a kernel for each of 16,000 phases would take gigabytes."""
    soundfile.write(tmp_path / 'odd.wav', tone(rate=11127), 11127)
    start = time.process_time()
    waveform = read_recording(tmp_path / 'odd.wav', RATE)
    assert time.process_time() - start < 2
    assert waveform.shape == (RATE,) and waveform.dtype == torch.float32
    assert (waveform - torch.from_numpy(tone()))[100:-100].abs().max() < 2e-3


def test_the_largest_amplitude_has_a_spectrogram():
    noise = torch.randint(0, 2, (RATE,), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    for rate in (RATE, 384000):
        for waveform in (noise, torch.from_numpy(tone(0.1, rate / 4, rate)).sign()):
            assert log_mel(waveform * LARGEST_AMPLITUDE, rate).isfinite().all()


def test_a_part_of_a_recording(recordings):
    whole = read_recording(recordings / 'plain.wav', RATE)
    part = read_recording(recordings / 'plain.wav', RATE, start=0.25, duration=0.5)
    assert torch.equal(part, whole[4000:12000])
    assert len(read_recording(recordings / 'plain.wav', RATE, start=0.75, duration=0.5)) == 4000


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('empty.wav', 'has no samples: leave it out'),
        ('nan.wav', 'has samples that are NaN or infinite'),
        ('huge.wav', 'has an amplitude of 1.0e+20, where full scale is 1'),
        ('unknown.wav', 'has no codec for it, or it is damaged'),
        ('missing.wav', 'does not exist'),
    ],
)
def test_what_cannot_be_used_is_named(recordings, name, reason):
    with pytest.raises(UserError) as error:
        read_recording(recordings / name, RATE)
    assert name in str(error.value) and reason in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_part_behind_the_end(recordings):
    with pytest.raises(UserError, match=r'has no samples after 3 s'):
        read_recording(recordings / 'plain.wav', RATE, start=3)


@pytest.mark.parametrize('name', ['silent.wav', 'click.wav'])
def test_silence_and_5_milliseconds_are_finite(recordings, name):
    values = log_mel(read_recording(recordings / name, RATE), RATE)
    assert values.isfinite().all()
    assert values.shape == ((98, 128) if name == 'silent.wav' else (1, 128))
    if name == 'silent.wav':
        assert np.allclose(values, np.log(np.finfo(np.float32).eps))


def test_skipping_warns_once_and_ends_at_the_limit(recordings, monkeypatch):
    notes = []
    monkeypatch.setattr(
        'unireplknet_mm.modalities.audio.recordings.print_log', lambda text, **_: notes.append(text)
    )
    load = LoadRecording(skip_unusable=True, most_skipped=2)
    for name in ('empty.wav', 'empty.wav', 'nan.wav'):
        assert load(dict(recording_path=recordings / name)) is None
    assert len(notes) == 2 and '(2 so far in this process)' in notes[1]
    with pytest.raises(UserError, match=r'more than 2 recordings cannot be used, .*unknown\.wav'):
        load(dict(recording_path=recordings / 'unknown.wav'))
    assert load(dict(recording_path=recordings / 'plain.wav'))['waveform'].shape == (RATE,)
    with pytest.raises(UserError, match=r'empty\.wav'):
        LoadRecording()(dict(recording_path=recordings / 'empty.wav'))
