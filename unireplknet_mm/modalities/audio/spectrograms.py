"""What changes a normalised (T, F) spectrogram, in which 0 is the mean of the data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from mmpretrain.structures import DataSample
from torch import Tensor

from unireplknet_mm.errors import ArgumentError

POSITIONS = ('start', 'center', 'random')
PADDINGS = ('mean', 'repeat')


@TRANSFORMS.register_module()
class FitFrames(BaseTransform):
    """Cuts or pads `spectrogram` to `num_frames`.

    Padding is the data set's mean by default, which is 0 after normalisation, as a mask is. Zeros in the
    waveform would be silence, -15.94 in log-mel values: far from all sound, and a share of the statistics
    that BatchNorm takes which depends on nothing but the recording's length.

    Args:
        num_frames: T, of 10 ms each.
        padding: 'mean', or 'repeat', the recording again from its beginning.
        position: where a longer one is cut and where a shorter one lies: 'start', 'center' or 'random'.
    """

    def __init__(self, num_frames: int, padding: str = 'mean', position: str = 'start'):
        if num_frames < 1:
            raise ArgumentError(f'num_frames must be positive, got {num_frames}')
        if padding not in PADDINGS:
            raise ArgumentError(f'padding must be {" or ".join(PADDINGS)}, got {padding!r}')
        if position not in POSITIONS:
            raise ArgumentError(f'position must be one of {", ".join(POSITIONS)}, got {position!r}')
        self.num_frames, self.padding, self.position = num_frames, padding, position

    @property
    def is_random(self) -> bool:
        return self.position == 'random'

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        spectrogram = results['spectrogram']
        surplus = len(spectrogram) - self.num_frames
        before = self._before(abs(surplus))
        if surplus >= 0:
            spectrogram = spectrogram[before : before + self.num_frames]
        elif self.padding == 'repeat':
            repeats = -(-self.num_frames // len(spectrogram))
            spectrogram = spectrogram.repeat(repeats, 1)[: self.num_frames]
        else:
            spectrogram = F.pad(spectrogram, (0, 0, before, -surplus - before))
        return {**results, 'spectrogram': spectrogram}

    def _before(self, frames: int) -> int:
        if self.position == 'random':
            return np.random.randint(frames + 1)
        return frames // 2 if self.position == 'center' else 0

    def __repr__(self) -> str:
        settings = f'{self.num_frames}, padding={self.padding!r}, position={self.position!r}'
        return f'{type(self).__name__}({settings})'


class RandomMask(BaseTransform):
    """Sets stretches to 0, the mean of the data set (SpecAugment, arXiv 1904.08779).

    Args:
        largest: the length of a stretch is drawn from 0 to this, or to all there is.
        count: of stretches.
    """

    axis: int
    is_random = True

    def __init__(self, largest: int, count: int = 1):
        if largest < 0 or count < 0:
            raise ArgumentError(
                f'{type(self).__name__} takes numbers from 0 on, got {largest}, {count}'
            )
        self.largest, self.count = largest, count

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        spectrogram = results['spectrogram'].clone()
        length = spectrogram.shape[self.axis]
        for _ in range(self.count):
            width = np.random.randint(min(self.largest, length) + 1)
            start = np.random.randint(length - width + 1)
            spectrogram.narrow(self.axis, start, width).zero_()
        return {**results, 'spectrogram': spectrogram}

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.largest}, count={self.count})'


@TRANSFORMS.register_module()
class MaskFrames(RandomMask):
    """`RandomMask` of stretches of frames."""

    axis = 0


@TRANSFORMS.register_module()
class MaskFrequencies(RandomMask):
    """`RandomMask` of stretches of bins."""

    axis = 1


@TRANSFORMS.register_module()
class RandomSpectrogramNoise(BaseTransform):
    """Adds uniform noise from 0 to a strength that is drawn from 0 to `largest`, as AST does."""

    def __init__(self, largest: float = 0.1):
        self.largest = largest

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        spectrogram = results['spectrogram']
        strength = np.random.uniform(0, self.largest)
        noise = np.random.random_sample(tuple(spectrogram.shape)) * strength
        return {**results, 'spectrogram': spectrogram + torch.from_numpy(noise.astype(np.float32))}

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.largest})'


@TRANSFORMS.register_module()
class RandomRoll(BaseTransform):
    """Rolls the frames by up to `largest` either way; those that leave at one end come in at the other."""

    def __init__(self, largest: int = 10):
        self.largest = largest

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        frames = np.random.randint(-self.largest, self.largest + 1)
        return {**results, 'spectrogram': results['spectrogram'].roll(frames, 0)}

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.largest})'


@TRANSFORMS.register_module()
class PackRecording(BaseTransform):
    """Packs `spectrogram` as `inputs`, (T, F), and the label, or the labels, in mmpretrain's `DataSample`.

    Args:
        num_classes: of a multi-label data set, for its `gt_score` of zeros and ones; None: one label.
        meta_keys: what else the sample keeps.
    """

    def __init__(
        self,
        num_classes: int | None = None,
        meta_keys: Sequence[str] = (
            'sample_idx',
            'recording_path',
            'start',
            'num_frames',
            'is_replaced',
        ),
    ):
        self.num_classes = num_classes
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any]:
        sample = DataSample()
        label = results.get('gt_label')
        if label is not None:
            sample.set_gt_label(label)
        if label is not None and self.num_classes is not None:
            score = torch.zeros(self.num_classes)
            score[torch.as_tensor(label, dtype=torch.long)] = 1
            sample.set_gt_score(score)
        sample.set_metainfo({key: results[key] for key in self.meta_keys if key in results})
        inputs: Tensor = results['spectrogram'].contiguous()
        return dict(inputs=inputs, data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_classes={self.num_classes})'
