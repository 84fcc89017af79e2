"""Other voices for the same words: pitch and formants, each shifted without the other and without the tempo.

`RandomSpeed` moves pitch, formants and tempo together. A voice has its pitch from the vocal folds and its
formants, the peaks of the spectral envelope, from the length of the vocal tract; a stranger's is another
combination of the two than any that was trained on.
"""

import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.registry import TRANSFORMS
from torch import Tensor
from torchaudio.functional import phase_vocoder

from unireplknet_mm.modalities.audio.waveforms import (
    RandomWaveformTransform,
    change_length,
    check_ratios,
    draw_ratio,
)

HIGHEST_PITCH = (
    400.0  # Hz; what varies faster along the frequencies than its harmonics is not envelope
)
LARGEST_GAIN = 30.0  # dB, of a frequency where the envelope moves


@functools.cache
def _window(size: int) -> Tensor:
    return torch.hann_window(size)


def _size(sample_rate: int) -> int:
    """Samples of a window: the power of two from 32 ms on."""
    return 2 ** math.ceil(math.log2(0.032 * sample_rate))


def _transform(waveform: Tensor, size: int) -> Tensor:
    """(samples,) -> complex (size / 2 + 1, frames), four frames a window."""
    padded = F.pad(waveform, (0, max(0, size - len(waveform))))
    return torch.stft(padded, size, size // 4, window=_window(size), return_complex=True)


def _invert(spectrum: Tensor, size: int, num_samples: int) -> Tensor:
    length = max(num_samples, size)
    waveform = torch.istft(spectrum, size, size // 4, window=_window(size), length=length)
    return waveform[:num_samples]


def stretch(waveform: Tensor, num_samples: int, sample_rate: int) -> Tensor:
    """(samples,) -> (num_samples,), slower or faster at the same pitch, by a phase vocoder."""
    size = _size(sample_rate)
    spectrum = _transform(waveform, size)
    advance = torch.linspace(0, math.pi * size / 4, size // 2 + 1)[:, None]
    stretched = phase_vocoder(spectrum, len(waveform) / num_samples, advance)
    return _invert(stretched, size, num_samples)


def spectral_envelope(spectrum: Tensor, size: int, sample_rate: int) -> Tensor:
    """The logarithm of the envelope of complex (size / 2 + 1, frames), smoothed through the cepstrum."""
    cepstrum = torch.fft.irfft(spectrum.abs().clamp(min=1e-5).log(), n=size, dim=0)
    cutoff = int(sample_rate / HIGHEST_PITCH)
    cepstrum[cutoff + 1 : size - cutoff] = 0
    return torch.fft.rfft(cepstrum, dim=0).real


def shift_formants(waveform: Tensor, ratio: float, sample_rate: int) -> Tensor:
    """Multiply the frequencies of the spectral envelope by `ratio`; pitch and length stay."""
    size = _size(sample_rate)
    spectrum = _transform(waveform, size)
    envelope = spectral_envelope(spectrum, size, sample_rate)
    last = len(envelope) - 1
    places = (torch.arange(last + 1) / ratio).clamp(max=last)
    low = places.long().clamp(max=last - 1)
    share = (places - low)[:, None]
    moved = envelope[low] * (1 - share) + envelope[low + 1] * share
    limit = LARGEST_GAIN / 20 * math.log(10)
    gain = (moved - envelope).clamp(-limit, limit).exp()
    return _invert(spectrum * gain, size, len(waveform))


def shift_pitch(waveform: Tensor, ratio: float, sample_rate: int) -> Tensor:
    """Multiply the pitch by `ratio`; formants and length stay."""
    shifted = change_length(waveform, round(len(waveform) / ratio))
    shifted = stretch(shifted, len(waveform), sample_rate)
    return shift_formants(shifted, 1 / ratio, sample_rate)


@TRANSFORMS.register_module()
class RandomFormants(RandomWaveformTransform):
    """Shifts the formants, as a longer or shorter vocal tract does, by a ratio between two.

    Args:
        ratios: the least and the largest.
        prob: of a change at all.
    """

    def __init__(self, ratios: Sequence[float] = (0.85, 1.18), prob: float = 0.5):
        super().__init__(prob)
        self.ratios = check_ratios('RandomFormants', ratios)

    def change(self, waveform: Tensor, sample_rate: int) -> Tensor:
        return shift_formants(waveform, draw_ratio(self.ratios), sample_rate)


@TRANSFORMS.register_module()
class RandomPitch(RandomWaveformTransform):
    """Shifts the pitch alone by a ratio between two; arguments as of `RandomFormants`."""

    def __init__(self, ratios: Sequence[float] = (0.8, 1.25), prob: float = 0.5):
        super().__init__(prob)
        self.ratios = check_ratios('RandomPitch', ratios)

    def change(self, waveform: Tensor, sample_rate: int) -> Tensor:
        return shift_pitch(waveform, draw_ratio(self.ratios), sample_rate)
