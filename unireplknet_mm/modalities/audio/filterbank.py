"""Kaldi's log-mel filterbank, normalised by the data set's mean and deviation.

As AST computes it (https://github.com/YuanGongND/ast), whose recipe the paper's audio experiments share:
the mean of the waveform removed, Hann windows of 25 ms every 10 ms, no dither, natural logarithm. The
normalisation divides by twice the deviation, so that most values lie within -1 and 1.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from torch import Tensor
from torchaudio.compliance.kaldi import fbank

from unireplknet_mm.errors import ArgumentError

WINDOW_SECONDS = 0.025
STEP_SECONDS = 0.010
# Frames that are computed at once, a minute: torchaudio takes some 15 KB for one.
MOST_FRAMES = 6000


def log_mel(waveform: Tensor, sample_rate: int, num_bins: int = 128) -> Tensor:
    """(samples,) -> (T, F) of T = 1 + (samples - 25 ms) / 10 ms frames, rounded down, and `num_bins` bins.

    A waveform shorter than one window is filled up with zeros to one, and gives one frame. Silence gives
    the logarithm of float32's epsilon, -15.94.
    """
    window, step = _samples(sample_rate, WINDOW_SECONDS), _samples(sample_rate, STEP_SECONDS)
    waveform = waveform - waveform.mean()
    if len(waveform) < window:
        waveform = F.pad(waveform, (0, window - len(waveform)))
    count = 1 + (len(waveform) - window) // step
    parts = []
    for first in range(0, count, MOST_FRAMES):
        last = min(first + MOST_FRAMES, count) - 1
        part = waveform[first * step : last * step + window]
        parts.append(_bank(part, sample_rate, num_bins))
    return torch.cat(parts)


def _samples(sample_rate: int, seconds: float) -> int:
    """As torchaudio counts them, in the same order of operations."""
    return int(sample_rate * (1000 * seconds) * 0.001)


def _bank(waveform: Tensor, sample_rate: int, num_bins: int) -> Tensor:
    return fbank(
        waveform[None],
        sample_frequency=sample_rate,
        num_mel_bins=num_bins,
        frame_length=1000 * WINDOW_SECONDS,
        frame_shift=1000 * STEP_SECONDS,
        window_type='hanning',
        htk_compat=True,
        use_energy=False,
        dither=0.0,
    )


def raise_floor(values: Tensor, decibels: float) -> Tensor:
    """Natural logarithms of powers, to each of which `decibels` less than the largest is added.

    What is far below it, the silence between the words of a clean recording or the noise of another, becomes
    alike; what is above it hardly changes.
    """
    return torch.logaddexp(values, values.max() - decibels / 10 * math.log(10))


@TRANSFORMS.register_module()
class LogMel(BaseTransform):
    """Adds `spectrogram`, (T, F), (log-mel - mean) / (2 std), and `num_frames`, T, for `waveform`.

    Args:
        mean: of the log-mel values of the data set, as `tools/audio_data.py statistics` measures it.
        std: their standard deviation.
        num_bins: F.
        floor: None, or how many decibels below the loudest value of a recording a floor is laid under all
            (`raise_floor`), so that how silent its silence is does not count.
    """

    def __init__(self, mean: float, std: float, num_bins: int = 128, floor: float | None = None):
        if std <= 0:
            raise ArgumentError(f'std of LogMel must be positive, got {std}')
        if floor is not None and floor <= 0:
            raise ArgumentError(f'floor of LogMel is a positive number of decibels, got {floor}')
        self.mean, self.std, self.num_bins, self.floor = mean, std, num_bins, floor

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        values = log_mel(results['waveform'], results['sample_rate'], self.num_bins)
        if self.floor is not None:
            values = raise_floor(values, self.floor)
        spectrogram = (values - self.mean) / (2 * self.std)
        return {**results, 'spectrogram': spectrogram, 'num_frames': len(spectrogram)}

    def undo(self, spectrogram: Tensor) -> Tensor:
        """The log-mel values of a normalised spectrogram."""
        return torch.as_tensor(spectrogram) * (2 * self.std) + self.mean

    def __repr__(self) -> str:
        settings = f'mean={self.mean}, std={self.std}, num_bins={self.num_bins}, floor={self.floor}'
        return f'{type(self).__name__}({settings})'
