"""What makes recordings alike before anything is heard: silence around the sound, and its level.

Both go by the energy of frames of 25 ms every 10 ms, as the filterbank has them, in decibels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from torch import Tensor

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.audio.filterbank import (
    MOST_FRAMES,
    STEP_SECONDS,
    WINDOW_SECONDS,
)

SILENT = -120.0  # dB of full scale; digital silence has this level instead of minus infinity
QUIETEST = 0.1  # the share of the frames that tells the level of the noise
ABOVE_NOISE = 6.0  # dB that a sound is louder than that
LEAST_RANGE = 10.0  # dB below the loudest frame down to which all is sound, whatever the noise


def frame_levels(waveform: Tensor, sample_rate: int) -> Tensor:
    """(samples,) -> (frames,), the mean power of each frame in dB of full scale; at least one frame."""
    window = round(WINDOW_SECONDS * sample_rate)
    overlapping = waveform.unfold(0, min(window, len(waveform)), round(STEP_SECONDS * sample_rate))
    # A minute at once: what is computed of long recordings would be larger than these.
    power = torch.cat(
        [frames.double().var(1, correction=0) for frames in overlapping.split(MOST_FRAMES)]
    )
    return 10 * power.clamp(min=10 ** (SILENT / 10)).log10()


@TRANSFORMS.register_module()
class TrimSilence(BaseTransform):
    """Cuts off what is silent before the first and after the last sound of `waveform`.

    Adds `offset`, where in the recording what is left begins, in seconds.

    Sound is a frame that is 6 dB louder than the quietest tenth of all, and no more than `decibels` below
    the loudest one; within 10 dB of the loudest all is sound. A steady noise around it is silence, too.

    Args:
        decibels: how much softer than its loudest frame a recording can be and be heard.
        margin: seconds that stay on either side.
    """

    def __init__(self, decibels: float = 45.0, margin: float = 0.1):
        if decibels < LEAST_RANGE or margin < 0:
            raise ArgumentError(
                f'TrimSilence takes decibels from {LEAST_RANGE:g} and a margin from 0 on, got {decibels}, '
                f'{margin}'
            )
        self.decibels, self.margin = decibels, margin

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        waveform, rate = results['waveform'], results['sample_rate']
        levels = frame_levels(waveform, rate)
        loudest = levels.max()
        threshold = (levels.quantile(QUIETEST) + ABOVE_NOISE).clamp(
            loudest - self.decibels, loudest - LEAST_RANGE
        )
        sounding = torch.nonzero(levels >= threshold)
        start = sounding[0].item() * STEP_SECONDS - self.margin
        end = sounding[-1].item() * STEP_SECONDS + WINDOW_SECONDS + self.margin
        if sounding[-1].item() == len(levels) - 1:  # what is left behind the last whole frame
            end = len(waveform) / rate
        first = max(0, round(start * rate))
        waveform = waveform[first : round(end * rate)]
        return {**results, 'waveform': waveform, 'offset': first / rate}

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.decibels}, margin={self.margin})'


@TRANSFORMS.register_module()
class NormalizeLevel(BaseTransform):
    """Amplifies `waveform` so that its loudest frame has `level`, in dB of full scale.

    Silence remains silence. What exceeds -1 and 1 is not clipped.
    """

    def __init__(self, level: float = -15.0):
        self.level = level

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        waveform = results['waveform']
        loudest = frame_levels(waveform, results['sample_rate']).max().item()
        if loudest <= SILENT:
            return dict(results)
        return {**results, 'waveform': waveform * 10 ** ((self.level - loudest) / 20)}

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.level})'
