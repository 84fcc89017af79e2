"""Filterbank, augmentations, packing: what each does, against what it is stated to do."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import load_config
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from tones import RATE, tone

from unireplknet_mm.errors import UserError
from unireplknet_mm.modalities.audio import caching, filterbank
from unireplknet_mm.modalities.audio import levels as of_levels
from unireplknet_mm.modalities.audio.caching import Cached
from unireplknet_mm.modalities.audio.filterbank import LogMel, log_mel
from unireplknet_mm.modalities.audio.levels import frame_levels
from unireplknet_mm.modalities.audio.recordings import read_recording, resample
from unireplknet_mm.modalities.audio.voices import shift_formants, shift_pitch, stretch
from unireplknet_mm.modalities.audio.waveforms import add_at_ratio, change_length

ROOT = Path(__file__).resolve().parents[3]


def apply(kind: str, results: dict, **settings) -> dict:
    return TRANSFORMS.build(dict(type=kind, **settings))(results)


def voice(pitch: float = 140.0, formant: float = 700.0, seconds: float = 0.5) -> torch.Tensor:
    """Harmonics of a pitch below an envelope with one peak."""
    time = np.arange(round(seconds * RATE)) / RATE
    harmonics = np.arange(1, int(4000 / pitch)) * pitch
    levels = np.exp(-(((harmonics - formant) / 300) ** 2)) + 1e-3
    sound = (levels[:, None] * np.sin(2 * np.pi * harmonics[:, None] * time)).sum(0)
    return torch.from_numpy((0.1 * sound).astype(np.float32))


def peak(waveform: torch.Tensor) -> float:
    """Frequency of the envelope's peak: the mean of the power below 4 kHz."""
    power = torch.fft.rfft(waveform).abs().square()
    hertz = torch.arange(len(power)) * RATE / len(waveform)
    power = torch.where(hertz < 4000, power, 0)
    return (power * hertz).sum().item() / power.sum().item()


def pitch_of(waveform: torch.Tensor) -> float:
    """By autocorrelation, from 80 to 400 Hz."""
    spectrum = torch.fft.rfft(waveform, n=2 * len(waveform))
    correlation = torch.fft.irfft(spectrum.abs().square())
    lags = slice(RATE // 400, RATE // 80)
    return RATE / (RATE // 400 + correlation[lags].argmax().item())


def test_filterbank_is_kaldis_as_written_in_numpy():
    """Its steps: frames, their means removed, pre-emphasis, Hann window, power, mel triangles."""
    waveform = torch.from_numpy(
        tone(0.1) + 0.1 * np.random.default_rng(0).standard_normal(1600)
    ).float()
    actual = log_mel(waveform, RATE, 40).numpy()
    x = waveform.double().numpy()
    x = x - x.mean()
    frames = np.stack([x[i : i + 400] for i in range(0, len(x) - 399, 160)])
    frames = frames - frames.mean(1, keepdims=True)
    frames = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], 1)
    frames = frames * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399))
    power = np.abs(np.fft.rfft(frames, 512)) ** 2

    def mel(hertz):
        return 1127 * np.log(1 + hertz / 700)

    edges = np.linspace(mel(20), mel(8000), 42)
    bins = mel(np.arange(257) * RATE / 512)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    banks = np.maximum(0, np.minimum(rising, falling))
    banks[:, 256] = 0  # Kaldi leaves the last bin out
    expected = np.log(np.maximum(power @ banks.T, np.finfo(np.float32).eps))
    assert actual.shape == (8, 40)
    assert np.abs(actual - expected).max() < 2e-3


@pytest.mark.parametrize('rate', [8000, 11127, 16000, 44100])
def test_long_recordings_are_computed_in_parts(rate, monkeypatch):
    """Which changes nothing, in the filterbank and in the levels."""
    noise = torch.randn(rate, generator=torch.Generator().manual_seed(0)) + 0.5
    whole, levels = log_mel(noise, rate), frame_levels(noise, rate)
    for most in (1, 7, 97, 98):
        monkeypatch.setattr(filterbank, 'MOST_FRAMES', most)
        monkeypatch.setattr(of_levels, 'MOST_FRAMES', most)
        torch.testing.assert_close(log_mel(noise, rate), whole, rtol=0, atol=1e-4)
        torch.testing.assert_close(frame_levels(noise, rate), levels, rtol=0, atol=1e-9)


def test_normalisation_and_its_inverse():
    transform = LogMel(mean=-6.8, std=5.5)
    results = transform(dict(waveform=torch.from_numpy(tone()), sample_rate=RATE))
    values = log_mel(torch.from_numpy(tone()), RATE)
    assert torch.equal(results['spectrogram'], (values + 6.8) / 11)
    assert torch.allclose(transform.undo(results['spectrogram']), values, atol=1e-5)
    assert results['num_frames'] == 98
    with pytest.raises(UserError, match='std of LogMel'):
        LogMel(mean=0, std=0)


@pytest.mark.parametrize('position', ['start', 'center', 'random'])
@pytest.mark.parametrize('frames', [5, 12, 20])
def test_fitting_frames(position, frames):
    spectrogram = 1 + torch.rand(frames, 3)
    fitted = apply('FitFrames', dict(spectrogram=spectrogram), num_frames=12, position=position)[
        'spectrogram'
    ]
    assert fitted.shape == (12, 3)
    kept = fitted[fitted.sum(1) > 0]
    starts = [i for i in range(max(1, frames - 11)) if torch.equal(spectrogram[i : i + 12], kept)]
    assert len(starts) == 1
    if position != 'random':
        before = 0 if position == 'start' else abs(frames - 12) // 2
        if frames < 12:
            assert torch.equal(fitted[before : before + frames], spectrogram)
        else:
            assert starts == [before]
    repeated = apply('FitFrames', dict(spectrogram=spectrogram), num_frames=12, padding='repeat')[
        'spectrogram'
    ]
    assert torch.equal(repeated[:frames], spectrogram[:12])
    if frames < 12:
        assert torch.equal(repeated[frames : 2 * frames], spectrogram[: 12 - frames])


def test_padding_is_the_mean_of_the_data_set_not_silence():
    bank = LogMel(mean=-6.8, std=5.5)
    results = bank(dict(waveform=torch.from_numpy(tone(0.5)), sample_rate=RATE))
    fitted = apply('FitFrames', results, num_frames=100)['spectrogram']
    assert torch.allclose(bank.undo(fitted[48:]), torch.tensor(-6.8))


@pytest.mark.parametrize(('kind', 'axis'), [('MaskFrames', 0), ('MaskFrequencies', 1)])
def test_masks_write_the_mean_over_whole_stretches(kind, axis):
    np.random.seed(0)
    widths = []
    for _ in range(200):
        spectrogram = torch.ones(30, 20)
        masked = apply(kind, dict(spectrogram=spectrogram), largest=8)['spectrogram']
        assert spectrogram.all(), 'the input was changed'
        along = masked.mean(1 - axis)
        assert set(along.tolist()) <= {0.0, 1.0}
        (places,) = (along == 0).nonzero(as_tuple=True)
        widths.append(len(places))
        assert len(places) == 0 or places[-1] - places[0] + 1 == len(places)
    assert set(widths) == set(range(9))
    nothing = apply(kind, dict(spectrogram=torch.ones(30, 20)), largest=0)['spectrogram']
    assert nothing.all()
    all_of_it = apply(kind, dict(spectrogram=torch.ones(3, 2)), largest=99, count=50)
    assert not all_of_it['spectrogram'].all()


def test_roll_and_noise_of_spectrograms():
    np.random.seed(0)
    spectrogram = torch.arange(40.0).reshape(20, 2)
    shifts = set()
    for _ in range(100):
        rolled = apply('RandomRoll', dict(spectrogram=spectrogram), largest=3)['spectrogram']
        shifts.add(int(rolled[0, 0]) // 2)
        assert sorted(rolled.flatten().tolist()) == sorted(spectrogram.flatten().tolist())
    assert shifts == {0, 1, 2, 3, 17, 18, 19}
    noisy = apply('RandomSpectrogramNoise', dict(spectrogram=spectrogram), largest=0.1)
    difference = noisy['spectrogram'] - spectrogram
    assert 0 <= difference.min() < difference.max() <= 0.1


def test_pitch_formants_and_tempo_change_alone():
    sound = voice()
    assert pitch_of(sound) == pytest.approx(140, rel=0.02)
    higher = shift_pitch(sound, 1.3, RATE)
    assert len(higher) == len(sound)
    assert pitch_of(higher) == pytest.approx(1.3 * 140, rel=0.03)
    assert peak(higher) == pytest.approx(peak(sound), rel=0.12)
    shorter_tract = shift_formants(sound, 1.3, RATE)
    assert len(shorter_tract) == len(sound)
    assert pitch_of(shorter_tract) == pytest.approx(140, rel=0.02)
    assert peak(shorter_tract) > 1.15 * peak(sound)
    slower = stretch(sound, 12000, RATE)
    assert len(slower) == 12000
    assert pitch_of(slower) == pytest.approx(140, rel=0.03)
    assert peak(slower) == pytest.approx(peak(sound), rel=0.05)
    faster = change_length(sound, round(len(sound) / 1.3))
    assert pitch_of(faster) == pytest.approx(1.3 * 140, rel=0.03)


def test_no_shift_is_the_same_sound():
    sound = voice()
    assert (shift_formants(sound, 1.0, RATE) - sound).abs().max() < 1e-4
    assert (stretch(sound, len(sound), RATE) - sound).abs().max() < 1e-3
    assert (change_length(sound, len(sound)) - sound).abs().max() < 1e-5


@pytest.mark.parametrize(
    'kind', ['RandomSpeed', 'RandomPitch', 'RandomFormants', 'RandomGain', 'RandomNoise']
)
@pytest.mark.parametrize('waveform', [torch.from_numpy(tone(0.005)), torch.zeros(4000)])
def test_clicks_and_silence_stay_finite(kind, waveform):
    results = apply(kind, dict(waveform=waveform, sample_rate=RATE), prob=1.0)
    assert results['waveform'].isfinite().all() and len(results['waveform'])
    assert results['waveform'].dtype == torch.float32


def test_a_probability_of_zero_changes_nothing(recordings):
    waveform = torch.from_numpy(tone(0.1))
    for kind in ('RandomSpeed', 'RandomPitch', 'RandomFormants', 'RandomGain', 'RandomNoise'):
        results = apply(kind, dict(waveform=waveform, sample_rate=RATE), prob=0.0)
        assert torch.equal(results['waveform'], waveform), kind


def test_noise_and_background_have_the_ratio_that_is_asked_for(tmp_path):
    sound = torch.from_numpy(tone())
    mixed = add_at_ratio(sound, 3 * torch.randn(RATE), 10.0)
    ratio = 10 * (sound.square().mean() / (mixed - sound).square().mean()).log10()
    assert ratio == pytest.approx(10, abs=1e-3)
    results = dict(waveform=sound, sample_rate=RATE)
    noisy = apply('RandomNoise', results, decibels=(20, 20), prob=1.0)['waveform']
    assert 10 * (0.125 / (noisy - sound).square().mean()).log10() == pytest.approx(20, abs=0.1)

    soundfile.write(tmp_path / 'short.wav', tone(0.1, 100), RATE)
    background = dict(type='RandomBackground', folder=str(tmp_path), decibels=(6, 6), prob=1.0)
    mixed = TRANSFORMS.build(background)(results)['waveform']
    added = mixed - sound
    assert 10 * (0.125 / added.square().mean()).log10() == pytest.approx(6, abs=0.1)
    short = read_recording(tmp_path / 'short.wav', RATE)
    scale = added[1600:3200].norm() / short.norm()
    assert (added[1600:3200] - scale * short).abs().max() < 1e-4
    with pytest.raises(UserError, match='has no recording'):
        (tmp_path / 'nothing').mkdir()
        TRANSFORMS.build({**background, 'folder': str(tmp_path / 'nothing')})(results)


def test_gain():
    sound = torch.from_numpy(tone())
    louder = apply('RandomGain', dict(waveform=sound, sample_rate=RATE), decibels=(6, 6))
    assert torch.allclose(louder['waveform'], sound * 10 ** (6 / 20))


@pytest.mark.parametrize('around', [0.0, 1e-4, 0.01], ids=['digital', 'faint', 'noisy'])
def test_silence_around_a_sound_is_cut_off(around):
    """Whether it is digital silence or a steady noise 17 dB below the sound."""
    rng = np.random.default_rng(0)
    sound = np.concatenate([np.zeros(RATE), tone(0.5) * 0.2, np.zeros(2 * RATE)])
    waveform = torch.from_numpy(
        (sound + around * rng.standard_normal(len(sound))).astype(np.float32)
    )
    results = dict(waveform=waveform, sample_rate=RATE)
    trimmed = apply('TrimSilence', results, margin=0.1)['waveform']
    start = RATE - round(0.1 * RATE)
    assert len(trimmed) == pytest.approx(0.7 * RATE, abs=0.06 * RATE)
    assert any(
        torch.equal(waveform[i : i + len(trimmed)], trimmed)
        for i in range(start - 800, start + 801)
    )
    assert apply('TrimSilence', results, margin=5)['waveform'].shape == waveform.shape


@pytest.mark.parametrize(
    'waveform',
    [torch.zeros(RATE), torch.ones(80), torch.full((1,), 0.5), torch.from_numpy(tone(0.31))],
    ids=['silence', 'constant', 'one sample', 'all sound'],
)
def test_what_has_no_silence_around_it_stays(waveform):
    results = dict(waveform=waveform, sample_rate=RATE)
    assert torch.equal(apply('TrimSilence', results)['waveform'], waveform)
    assert apply('NormalizeLevel', results)['waveform'].isfinite().all()


def test_levels_become_alike():
    quiet = torch.cat([torch.zeros(RATE), torch.from_numpy(tone(0.5))])
    changed = [
        apply('NormalizeLevel', dict(waveform=gain * quiet, sample_rate=RATE), level=-15)[
            'waveform'
        ]
        for gain in (1e-3, 1.0, 30.0)
    ]
    for waveform in changed:
        assert frame_levels(waveform, RATE).max().item() == pytest.approx(-15, abs=1e-3)
        assert torch.allclose(waveform, changed[1], rtol=1e-4, atol=1e-7)
    silence = dict(waveform=torch.zeros(RATE), sample_rate=RATE)
    assert not apply('NormalizeLevel', silence)['waveform'].any()


def test_a_floor_makes_silences_alike_and_leaves_the_sound():
    rng = np.random.default_rng(0)
    sound = np.concatenate([tone(0.5), np.zeros(RATE // 2, np.float32)])
    banks = []
    for noise in (0.0, 1e-4):
        waveform = torch.from_numpy((sound + noise * rng.standard_normal(RATE)).astype(np.float32))
        results = dict(waveform=waveform, sample_rate=RATE)
        plain, floored = (
            apply('LogMel', results, mean=0.0, std=0.5, floor=floor)['spectrogram']
            for floor in (None, 40.0)
        )
        lowest = plain.max() - 4 * np.log(10)
        assert floored.min() >= lowest and (floored.min() - lowest) < 0.1
        loud = plain > plain.max() - 2 * np.log(10)
        assert (floored - plain)[loud].abs().max() < 0.011
        banks.append((plain, floored))
    (silent, silent_floored), (noisy, noisy_floored) = banks
    assert (noisy - silent)[60:].abs().mean() > 1
    assert (noisy_floored - silent_floored)[60:].abs().max() < 0.1


def test_a_strangers_recorder_does_not_matter(tmp_path):
    """To the config of the spoken digits: a level, silence around the word, another rate, stereo."""
    sound = voice(seconds=0.5).numpy()
    around = np.zeros(RATE, np.float32)
    others = {
        'plain': (sound, RATE),
        'soft': (0.05 * sound, RATE),
        'late': (np.concatenate([around, sound, around]), RATE),
        'stereo': (np.stack([sound, sound], 1), RATE),
        '48 kHz': (resample(torch.from_numpy(sound), RATE, 48000).numpy(), 48000),
    }
    cfg = load_config(ROOT / 'configs/custom/unireplknet_spoken_digits_stranger.py')
    pipeline = Compose([TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline])
    inputs = {}
    for name, (samples, rate) in others.items():
        soundfile.write(tmp_path / f'{name}.wav', samples, rate, subtype='FLOAT')
        inputs[name] = pipeline(dict(recording_path=str(tmp_path / f'{name}.wav')))['inputs']
    spread = inputs['plain'].std()
    for name, limit in {'soft': 1e-3, 'late': 0.35, 'stereo': 1e-6, '48 kHz': 0.1}.items():
        at = match(inputs[name], inputs['plain'])
        assert at.abs().mean() < limit * spread, name


def match(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Their difference, where the one is rolled by the frames that fit best."""
    return min((one.roll(k, 0) - other for k in range(-12, 13)), key=lambda d: d.abs().mean())


def test_filters_are_smooth_and_of_the_stated_size():
    """The response of many, at octaves from 125 Hz on, taken from an impulse."""
    np.random.seed(0)
    impulse = torch.zeros(RATE)
    impulse[RATE // 2] = 1
    transform = TRANSFORMS.build(dict(type='RandomFilter', decibels=4.0, tilt=0.0, prob=1))
    responses = torch.stack(
        [
            20
            * torch.fft.rfft(transform(dict(waveform=impulse, sample_rate=RATE))['waveform'])
            .abs()
            .log10()
            for _ in range(200)
        ]
    )
    at_octaves = responses[:, [60 * 2**octave for octave in range(8)]]
    assert at_octaves.std(0).mean().item() == pytest.approx(4 * (7 / 8) ** 0.5, rel=0.1)
    assert at_octaves.mean(1).abs().mean() < 0.6  # the level stays
    steps = responses[:, 61:7600].diff(dim=1).abs()
    assert steps.max() < 0.5  # dB from one Hz to the next
    tilted = TRANSFORMS.build(dict(type='RandomFilter', decibels=0.0, tilt=6.0, prob=1))
    slopes = []
    for _ in range(100):
        changed = tilted(dict(waveform=impulse, sample_rate=RATE))['waveform']
        curve = 20 * torch.fft.rfft(changed).abs().log10()[[240, 480, 960, 1920]]
        assert curve.diff().std() < 0.01
        slopes.append(curve.diff().mean().item())
    assert -6 <= min(slopes) < -4 and 4 < max(slopes) <= 6


def test_segments():
    results = dict(waveform=torch.arange(100.0), sample_rate=10)
    starts = [
        apply('CropSegment', results, seconds=4, position=p)['waveform'][0].item()
        for p in (0, 0.5, 1)
    ]
    assert starts == [0, 30, 60]
    np.random.seed(0)
    lengths = {len(apply('RandomSegment', results, seconds=4)['waveform']) for _ in range(9)}
    assert lengths == {40}
    assert len(apply('CropSegment', results, seconds=40)['waveform']) == 100


def test_packing_one_label_and_several():
    results = dict(spectrogram=torch.rand(4, 3).T, gt_label=2, recording_path='a.wav', num_frames=4)
    packed = apply('PackRecording', results)
    assert packed['inputs'].shape == (3, 4) and packed['inputs'].is_contiguous()
    assert packed['data_samples'].gt_label.tolist() == [2]
    assert packed['data_samples'].recording_path == 'a.wav'
    packed = apply('PackRecording', {**results, 'gt_label': [0, 3]}, num_classes=5)
    assert packed['data_samples'].gt_score.tolist() == [1, 0, 0, 1, 0]
    assert (
        'gt_label'
        not in apply('PackRecording', dict(spectrogram=torch.zeros(1, 1)))['data_samples']
    )


def test_cache(recordings, tmp_path, monkeypatch):
    path = tmp_path / 'a.wav'
    path.write_bytes((recordings / 'plain.wav').read_bytes())
    settings = dict(
        folder=str(tmp_path / 'cache'),
        transforms=[dict(type='LoadRecording'), dict(type='LogMel', mean=-6.8, std=5.5)],
    )
    results = dict(recording_path=str(path), gt_label=1)
    first = apply('Cached', results, **settings)
    (kept,) = (tmp_path / 'cache').rglob('*.npz')
    read = []
    monkeypatch.setattr(
        'unireplknet_mm.modalities.audio.recordings.read_recording',
        lambda path, *rest: read.append(path) or read_recording(path, *rest),
    )
    second = apply('Cached', results, **settings)
    assert read == [] and second.keys() == first.keys()
    assert torch.equal(first['spectrogram'], second['spectrogram'])
    assert second['num_frames'] == 98 and second['gt_label'] == 1
    whole = kept.read_bytes()
    for damaged in (b'damaged', whole[: len(whole) // 2]):
        kept.write_bytes(damaged)
        again = apply('Cached', results, **settings)
        assert torch.equal(again['spectrogram'], first['spectrogram'])
        assert len(kept.read_bytes()) == len(whole)
    apply('Cached', {**results, 'start': 0.5}, **settings)
    other = [settings['transforms'][0], dict(type='LogMel', mean=-6.7, std=5.5)]
    apply('Cached', results, folder=settings['folder'], transforms=other)
    path.write_bytes((recordings / 'silent.wav').read_bytes() + b'\0\0')
    apply('Cached', results, **settings)
    assert len(read) == 5
    assert len(list((tmp_path / 'cache').rglob('*.npz'))) == 4


def test_a_cache_gives_the_same_the_first_time_and_later(recordings, tmp_path):
    """Also of a transform that writes what the cache does not keep into the dict that it gets."""

    class AddPeak(BaseTransform):
        def transform(self, results):
            results['peak'] = results['waveform'].max()
            return results

    load = dict(type='LoadRecording')
    results = dict(recording_path=str(recordings / 'plain.wav'), gt_label=1)
    cached = Cached([load, AddPeak(), dict(type='LogMel', mean=-6.8, std=5.5)], tmp_path / 'cache')
    keys = [cached.transform(results).keys() for _ in range(2)]
    assert keys[0] == keys[1] and 'peak' not in results


def test_cache_keeps_where_the_sound_begins(tmp_path, monkeypatch):
    path = tmp_path / 'late.wav'
    soundfile.write(path, np.concatenate([np.zeros(RATE), tone(1.0)]), RATE)
    settings = dict(
        folder=str(tmp_path / 'cache'),
        transforms=[
            dict(type='LoadRecording'),
            dict(type='TrimSilence', margin=0.1),
            dict(type='LogMel', mean=-6.8, std=5.5),
        ],
    )
    results = dict(recording_path=str(path))
    with monkeypatch.context() as before:  # files as they were when nobody kept it
        before.setattr(caching, 'KEPT', ('spectrogram', 'sample_rate', 'num_frames'))
        before.setattr(caching, 'VERSION', caching.VERSION - 1)
        apply('Cached', results, **settings)
    for _ in range(2):
        kept = apply('Cached', results, **settings)
        assert kept['offset'] == pytest.approx(0.9, abs=0.03)
    assert len(list((tmp_path / 'cache').rglob('*.npz'))) == 2


@pytest.mark.parametrize(
    ('kind', 'settings'),
    [
        ('RandomRoll', {}),
        ('MaskFrames', dict(largest=3)),
        ('MaskFrequencies', dict(largest=3)),
        ('FitFrames', dict(num_frames=9, position='random')),
        ('RandomSegment', dict(seconds=1)),
    ],
)
def test_random_transforms_are_not_cached(kind, settings):
    transform = dict(type=kind, **settings)
    within = dict(type='TransformBroadcaster', transforms=[transform], mapping=dict(a=['a']))
    for held in (transform, within, dict(type='Cached', folder='x', transforms=[within])):
        with pytest.raises(UserError, match=f'{kind} for ever'):
            TRANSFORMS.build(dict(type='Cached', folder='x', transforms=[held]))
    still = dict(type='FitFrames', num_frames=9)
    TRANSFORMS.build(dict(type='Cached', folder='x', transforms=[still]))


@pytest.mark.parametrize(
    ('kind', 'settings'),
    [
        ('FitFrames', dict(num_frames=0)),
        ('FitFrames', dict(num_frames=1, padding='silence')),
        ('FitFrames', dict(num_frames=1, position='end')),
        ('MaskFrames', dict(largest=-1)),
        ('RandomSpeed', dict(ratios=(1.2, 0.8))),
        ('RandomPitch', dict(prob=2)),
        ('CropSegment', dict(seconds=1, position=3)),
        ('LoadRecording', dict(sample_rate=0)),
        ('LogMel', dict(mean=0, std=1, floor=0)),
        ('TrimSilence', dict(decibels=5)),
        ('TrimSilence', dict(margin=-1)),
        ('RandomFilter', dict(octaves=0)),
        ('RandomFilter', dict(tilt=-1)),
    ],
)
def test_settings_that_make_no_sense(kind, settings):
    with pytest.raises(UserError):
        TRANSFORMS.build(dict(type=kind, **settings))
