"""What changes a waveform: gain, filters, noise, background, speed, and which part of it is taken."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from scipy.signal import resample as fourier_resample
from torch import Tensor

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.audio.recordings import RecordingError, read_recording
from unireplknet_mm.modalities.audio.searching import find_recordings


def change_length(waveform: Tensor, num_samples: int) -> Tensor:
    """(samples,) -> (num_samples,) over the same time span, band-limited.

    Played at the rate of before, it is faster and higher, or slower and lower.
    """
    resampled = fourier_resample(waveform.numpy(), max(1, num_samples))
    return torch.from_numpy(resampled.astype(np.float32))


def draw_ratio(ratios: Sequence[float]) -> float:
    """A ratio between two, uniform in its logarithm, so that 1 / r is as likely as r."""
    return float(np.exp(np.random.uniform(*np.log(ratios))))


def check_ratios(name: str, ratios: Sequence[float]) -> tuple[float, float]:
    if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1]:
        raise ArgumentError(f'{name} takes two positive ratios, the smaller first, got {ratios}')
    return tuple(ratios)


def add_at_ratio(waveform: Tensor, noise: Tensor, decibels: float) -> Tensor:
    """A waveform with noise that is `decibels` weaker than it; silence on either side leaves it as it is."""
    power, noise_power = waveform.square().mean(), noise.square().mean()
    if power == 0 or noise_power == 0:
        return waveform
    return waveform + noise * (power / noise_power * 10 ** (-decibels / 10)).sqrt()


class RandomWaveformTransform(BaseTransform):
    """Changes `waveform` with a probability of `prob`."""

    def __init__(self, prob: float):
        if not 0 <= prob <= 1:
            raise ArgumentError(f'prob of {type(self).__name__} must be from 0 to 1, got {prob}')
        self.prob = prob

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        if np.random.random_sample() >= self.prob:
            return dict(results)
        waveform = self.change(results['waveform'], results['sample_rate'])
        return {**results, 'waveform': waveform}

    def change(self, waveform: Tensor, sample_rate: int) -> Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        settings = ', '.join(f'{name}={value}' for name, value in vars(self).items())
        return f'{type(self).__name__}({settings})'


@TRANSFORMS.register_module()
class RandomSpeed(RandomWaveformTransform):
    """Plays faster and higher, or slower and lower: pitch, formants and tempo by one ratio.

    Args:
        ratios: the least and the largest.
        prob: of a change at all.
    """

    def __init__(self, ratios: Sequence[float] = (0.9, 1.1), prob: float = 1.0):
        super().__init__(prob)
        self.ratios = check_ratios('RandomSpeed', ratios)

    def change(self, waveform: Tensor, sample_rate: int) -> Tensor:
        return change_length(waveform, round(len(waveform) / draw_ratio(self.ratios)))


@TRANSFORMS.register_module()
class RandomGain(RandomWaveformTransform):
    """Louder or softer by a number of decibels between two; what exceeds -1 and 1 is not clipped."""

    def __init__(self, decibels: Sequence[float] = (-10.0, 10.0), prob: float = 1.0):
        super().__init__(prob)
        self.decibels = tuple(decibels)

    def change(self, waveform: Tensor, sample_rate: int) -> Tensor:
        return waveform * 10 ** (np.random.uniform(*self.decibels) / 20)


@TRANSFORMS.register_module()
class RandomFilter(RandomWaveformTransform):
    """Filters as other microphones and rooms do: a smooth curve over the frequencies, in decibels.

    It goes through random values at points that lie evenly on the axis of octaves, with straight lines
    between, and has no phase; its mean over the points is 0, the level being `RandomGain`'s. A second curve,
    straight, tilts it.

    Args:
        decibels: the deviation of the values at the points, normally distributed.
        tilt: the slope of the straight curve, in decibels an octave, is drawn from -`tilt` to `tilt`.
        octaves: between two points.
        lowest: the frequency of the first point in Hz; the curve is constant below it.
        prob: of a change at all.
    """

    def __init__(
        self,
        decibels: float = 4.0,
        tilt: float = 6.0,
        octaves: float = 1.0,
        lowest: float = 60.0,
        prob: float = 0.5,
    ):
        super().__init__(prob)
        if min(decibels, tilt) < 0 or min(octaves, lowest) <= 0:
            raise ArgumentError(
                f'RandomFilter takes decibels and a tilt from 0 on, positive octaves and lowest, got '
                f'{decibels}, {tilt}, {octaves}, {lowest}'
            )
        self.decibels, self.tilt = decibels, tilt
        self.octaves, self.lowest = octaves, lowest

    def change(self, waveform: Tensor, sample_rate: int) -> Tensor:
        count = max(2, 1 + math.ceil(math.log2(sample_rate / 2 / self.lowest) / self.octaves))
        places = np.arange(count) * self.octaves  # in octaves above the lowest
        curve = np.random.normal(0, self.decibels, count)
        curve += np.random.uniform(-self.tilt, self.tilt) * places
        frequencies = np.fft.rfftfreq(len(waveform), 1 / sample_rate).clip(self.lowest)
        gains = np.interp(np.log2(frequencies / self.lowest), places, curve - curve.mean())
        filtered = np.fft.irfft(np.fft.rfft(waveform.numpy()) * 10 ** (gains / 20), len(waveform))
        return torch.from_numpy(filtered.astype(np.float32))


@TRANSFORMS.register_module()
class RandomNoise(RandomWaveformTransform):
    """Adds noise whose power falls as 1 / f**color, at a ratio of signal to noise between two.

    Args:
        decibels: the least and the largest ratio.
        color: the exponents, drawn uniformly: 0 is white, 1 pink, 2 brown noise.
        prob: of any noise.
    """

    def __init__(
        self,
        decibels: Sequence[float] = (5.0, 30.0),
        color: Sequence[float] = (0.0, 2.0),
        prob: float = 0.5,
    ):
        super().__init__(prob)
        self.decibels = tuple(decibels)
        self.color = tuple(color)

    def change(self, waveform: Tensor, sample_rate: int) -> Tensor:
        white = np.fft.rfft(np.random.standard_normal(len(waveform)))
        exponent = np.random.uniform(*self.color) / 2  # of the amplitude
        colored = white * np.arange(1, len(white) + 1) ** -exponent
        noise = np.fft.irfft(colored, len(waveform)).astype(np.float32)
        return add_at_ratio(waveform, torch.from_numpy(noise), np.random.uniform(*self.decibels))


@TRANSFORMS.register_module()
class RandomBackground(RandomWaveformTransform):
    """Adds a random part of a random recording of a folder, repeated where it is too short.

    Args:
        folder: with recordings in it, or below it, such as `_background_noise_` of Speech Commands.
        decibels: the least and the largest ratio of signal to background.
        prob: of any background.

    Raises:
        RecordingError: there is no recording in the folder.
    """

    def __init__(self, folder: str, decibels: Sequence[float] = (0.0, 30.0), prob: float = 0.5):
        super().__init__(prob)
        self.folder = folder
        self.decibels = tuple(decibels)
        self._backgrounds: dict[int, list[Tensor]] = {}  # by sample rate, once a process

    def change(self, waveform: Tensor, sample_rate: int) -> Tensor:
        if sample_rate not in self._backgrounds:
            paths = find_recordings(self.folder)
            if not paths:
                raise RecordingError(f'{self.folder}, a folder of backgrounds, has no recording')
            self._backgrounds[sample_rate] = [read_recording(p, sample_rate) for p in paths]
        backgrounds = self._backgrounds[sample_rate]
        background = backgrounds[np.random.randint(len(backgrounds))]
        start = np.random.randint(max(1, len(background) - len(waveform) + 1))
        background = background[start : start + len(waveform)]
        background = background.repeat(-(-len(waveform) // len(background)))[: len(waveform)]
        return add_at_ratio(waveform, background, np.random.uniform(*self.decibels))


@TRANSFORMS.register_module()
class RandomSegment(BaseTransform):
    """Takes `seconds` of a longer waveform, from a random place; a shorter one stays whole."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        return take_segment(results, self.seconds, np.random.random_sample())

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.seconds})'


@TRANSFORMS.register_module()
class CropSegment(BaseTransform):
    """Takes `seconds` of a longer waveform, from a given place: several of them test a long recording.

    Args:
        seconds: the length.
        position: 0 is the beginning, 1 the end, 0.5 the middle.
    """

    def __init__(self, seconds: float, position: float = 0.5):
        if not 0 <= position <= 1:
            raise ArgumentError(f'position of CropSegment must be from 0 to 1, got {position}')
        self.seconds, self.position = seconds, position

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        return take_segment(results, self.seconds, self.position)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.seconds}, position={self.position})'


def take_segment(results: Mapping[str, Any], seconds: float, position: float) -> dict[str, Any]:
    waveform = results['waveform']
    count = round(seconds * results['sample_rate'])
    start = round(max(0, len(waveform) - count) * position)
    return {**results, 'waveform': waveform[start : start + count]}
