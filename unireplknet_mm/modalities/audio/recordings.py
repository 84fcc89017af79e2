"""Recordings as waveforms: one channel, one sample rate, finite numbers.

What soundfile reads: wav, flac, ogg, mp3 and more. Treatment of what is unusual: channels are averaged;
another sample rate is resampled; silence is a recording as any other; a file that is missing, empty, of an
unknown codec, with NaN or infinity or with absurd amplitudes in it is a `RecordingError`.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from mmengine.registry import TRANSFORMS
from scipy.signal import resample_poly
from torch import Tensor

from unireplknet_mm.errors import ArgumentError, UserError

SUFFIXES = ('.wav', '.flac', '.ogg', '.oga', '.opus', '.mp3', '.aif', '.aiff', '.au')

# Full scale is 1, in some files of floats 2**15 or 2**31. In the filterbank a window of 25 ms has at most
# 9,600 samples (at 384 kHz): the power of this amplitude there, (9,600 × 1e12)**2 = 1e32, and its sum over
# the bins are far from float32's largest number, 3.4e38.
LARGEST_AMPLITUDE = 1e12


class RecordingError(UserError):
    """A recording that cannot be used."""


def resample(waveform: Tensor, old_rate: int, new_rate: int) -> Tensor:
    """(samples,) at another sample rate, band-limited.

    Any two rates will do: the filter grows with their ratio in lowest terms, which for 11,127 and 16,000 Hz
    is these numbers, but not with its square.
    """
    if old_rate == new_rate:
        return waveform
    common = math.gcd(old_rate, new_rate)
    return torch.from_numpy(resample_poly(waveform.numpy(), new_rate // common, old_rate // common))


def read_recording(
    path: str | Path, sample_rate: int, start: float = 0.0, duration: float | None = None
) -> Tensor:
    """A recording, or the part of it from `start`, as a waveform of (samples,) numbers from -1 to 1.

    Args:
        sample_rate: of the result, in Hz.
        start: in seconds.
        duration: in seconds; None reads to the end. A part that the end cuts off is shorter.

    Raises:
        RecordingError: there is no such file, or no sound in it that can be used; see the module's text.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            file.seek(min(round(start * rate), file.frames))
            count = -1 if duration is None else round(duration * rate)
            samples = file.read(count, dtype='float32', always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        if not Path(path).is_file():
            raise RecordingError(f'recording {path} does not exist') from error
        raise RecordingError(
            f'recording {path} cannot be read ({error}): soundfile {soundfile.__version__} has no codec '
            'for it, or it is damaged; convert it to wav or flac, or leave it out'
        ) from error
    if not len(samples):
        raise RecordingError(
            f'recording {path} has no samples{f" after {start} s" if start else ""}: leave it out'
        )
    if not np.isfinite(samples).all():
        raise RecordingError(f'recording {path} has samples that are NaN or infinite: leave it out')
    if (largest := np.abs(samples).max()) > LARGEST_AMPLITUDE:
        raise RecordingError(
            f'recording {path} has an amplitude of {largest:.1e}, where full scale is 1 and more than '
            f'{LARGEST_AMPLITUDE:.0e} no sound: it is damaged, leave it out'
        )
    return resample(torch.from_numpy(samples.mean(1)), rate, sample_rate)


@TRANSFORMS.register_module()
class LoadRecording(BaseTransform):
    """Adds `waveform`, (samples,), and `sample_rate` for `recording_path`.

    `start` and `duration`, in seconds, choose a part of the file, where the data set states them.

    Args:
        sample_rate: of the waveform, in Hz; recordings of other rates are resampled.
        skip_unusable: in a training, replace a recording that cannot be used by another one, drawn at
            random, with a warning; the first `most_skipped` of each worker, then it is an error after all.
        silence_unusable: in a test, take one second of silence for it, with a warning: it counts, by its
            label, as what the model says of silence, and `ReplacedRecordings` says beside the scores how many
            there are. One without a label remains an error. The limit is the same.
        most_skipped: see there.

    Raises:
        RecordingError: a recording cannot be used.
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        skip_unusable: bool = False,
        most_skipped: int = 100,
        silence_unusable: bool = False,
    ):
        if sample_rate < 1:
            raise ArgumentError(f'sample_rate must be positive, got {sample_rate}')
        if skip_unusable and silence_unusable:
            raise ArgumentError(
                'skip_unusable is for trainings, silence_unusable for tests: not both'
            )
        self.silence_unusable = silence_unusable
        self.sample_rate = sample_rate
        self.skip_unusable = skip_unusable
        self.most_skipped = most_skipped
        self.skipped: set[str] = set()

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any] | None:
        path = results['recording_path']
        try:
            waveform = read_recording(
                path, self.sample_rate, results.get('start', 0.0), results.get('duration')
            )
        except RecordingError as error:
            if self.skip_unusable:
                self._note(str(path), error, 'Another recording takes its place')
                return None
            if not self.silence_unusable or 'gt_label' not in results:
                raise
            self._note(str(path), error, 'It counts as silence')
            silence = torch.zeros(self.sample_rate)
            return {
                **results,
                'waveform': silence,
                'sample_rate': self.sample_rate,
                'is_replaced': True,
            }
        return {**results, 'waveform': waveform, 'sample_rate': self.sample_rate}

    def _note(self, path: str, error: RecordingError, remedy: str) -> None:
        if path in self.skipped:
            return
        self.skipped.add(path)
        if len(self.skipped) > self.most_skipped:
            raise RecordingError(
                f'more than {self.most_skipped} recordings cannot be used, the last of them: {error}'
            ) from error
        print_log(
            f'{error}. {remedy} ({len(self.skipped)} so far in this process).',
            logger='current',
            level=logging.WARNING,
        )

    def __repr__(self) -> str:
        return f'{type(self).__name__}(sample_rate={self.sample_rate})'
