"""From the path of a video to the clips that the network gets.

Frames go through the image transforms of mmcv and mmpretrain (`EachFrame`): there is no second set of
transforms for videos. Between the steps `results` holds

- `frames`: a list of (H, W, 3) uint8 images in BGR, those of the first clip, then those of the next;
- `num_frames`: how many of them are a clip.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from mmpretrain.datasets import PackInputs

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.video.reading import BACKENDS, open_video
from unireplknet_mm.modalities.video.sampling import check_sampling, sample_dense, sample_uniform

GREY_SIZE = (256, 256)  # where no video of the set can be read


@TRANSFORMS.register_module()
class LoadVideo(BaseTransform):
    """Chooses frames of the video at `video_path` and decodes them.

    Adds `frames`, `num_frames`, `frame_indices` (clips × frames), `ori_shape` and `img_shape`.

    Args:
        num_frames: of a clip.
        sampling: 'dense' (frames `stride` apart) or 'uniform' (from all over the video).
        stride: of dense sampling.
        num_clips: clips of a video, each of which is a view.
        random: clips at random places, for training, instead of fixed ones.
        backend: what decodes files: 'pyav' or 'torchcodec'.

    Raises:
        ArgumentError: a value is out of range.
        UnreadableVideoError: the video cannot be read. Where the data set has marked it as such, with
            `unreadable`, grey frames are made in its place, of the size of the video at `sized_as`.
    """

    def __init__(
        self,
        num_frames: int = 16,
        sampling: str = 'dense',
        stride: int = 4,
        num_clips: int = 1,
        random: bool = False,
        backend: str = 'pyav',
    ):
        check_sampling(sampling, num_frames, stride, num_clips)
        if backend not in BACKENDS:
            raise ArgumentError(f'backend must be one of {", ".join(BACKENDS)}, not {backend!r}')
        self.num_frames = num_frames
        self.sampling = sampling
        self.stride = stride
        self.num_clips = num_clips
        self.random = random
        self.backend = backend

    def sample(self, length: int) -> np.ndarray:
        """(num_clips, num_frames) frame numbers of a video of `length` frames."""
        if self.sampling == 'uniform':
            return sample_uniform(length, self.num_frames, self.num_clips, self.random)
        return sample_dense(length, self.num_frames, self.stride, self.num_clips, self.random)

    def transform(self, results: dict) -> dict:
        if results.get('unreadable'):
            indices = self.sample(1)
            frames = [self._grey_frame(results.pop('sized_as', None))] * indices.size
        else:
            with open_video(results['video_path'], self.backend) as video:
                indices = self.sample(len(video))
                frames = video.read(indices.flatten().tolist())
        results['frames'] = frames
        results['num_frames'] = self.num_frames
        results['frame_indices'] = indices.tolist()
        results['ori_shape'] = results['img_shape'] = frames[0].shape[:2]
        return results

    def _grey_frame(self, path: str | None) -> np.ndarray:
        if path is None:
            return np.full((*GREY_SIZE, 3), 128, np.uint8)
        with open_video(path, self.backend) as video:
            return np.full_like(video.read([0])[0], 128)


@TRANSFORMS.register_module()
class EachFrame(BaseTransform):
    """Image transforms, applied to every frame of all clips in one and the same way.

    The random generators of Python, NumPy and torch are put back before each frame, so a transform draws
    the same numbers for all: the same crop, flip, colours, RandAugment policies and magnitudes.

    Args:
        transforms: configs of transforms that read and write `img`.

    Raises:
        ArgumentError: the frames come out with different sizes.
    """

    def __init__(self, transforms: Sequence[dict]):
        self.transforms = Compose(transforms)

    def transform(self, results: dict) -> dict:
        frames = results.pop('frames')
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        transformed = []
        for frame in frames:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
            one = self.transforms({**results, 'img': frame, 'img_shape': frame.shape[:2]})
            transformed.append(one.pop('img'))
        sizes = {frame.shape for frame in transformed}
        if len(sizes) > 1:
            raise ArgumentError(
                f'the frames of a clip have different sizes after EachFrame: {sorted(sizes)}; a transform in '
                'it depends on what is in the picture'
            )
        return {**one, 'frames': transformed}

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.transforms})'


@TRANSFORMS.register_module()
class SpatialCrops(BaseTransform):
    """Square crops along the longer side, from one end to the other: each clip becomes as many views.

    Args:
        size: of a crop, in pixels; the shorter side at least.
        num_crops: 3 in the paper's recipe: left, middle, right, or top, middle, bottom; 1 is the middle.

    Raises:
        ArgumentError: the frames are smaller than a crop.
    """

    def __init__(self, size: int, num_crops: int = 3):
        if num_crops < 1:
            raise ArgumentError(f'num_crops must be at least 1, not {num_crops}')
        self.size = size
        self.num_crops = num_crops

    def transform(self, results: dict) -> dict:
        frames, n = results['frames'], results['num_frames']
        height, width = frames[0].shape[:2]
        if min(height, width) < self.size:
            raise ArgumentError(
                f'frames of {height}x{width} are smaller than a crop of {self.size}x{self.size}: scale them '
                'with ResizeEdge before'
            )
        crops = []
        for first in range(0, len(frames), n):
            for y, x in self._corners(height, width):
                clip = frames[first : first + n]
                crops += [frame[y : y + self.size, x : x + self.size] for frame in clip]
        results['frames'] = crops
        results['img_shape'] = (self.size, self.size)
        return results

    def _corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """(y, x) of the crops, in the middle of the shorter side."""
        count = self.num_crops
        shares = np.linspace(0, 1, count) if count > 1 else [0.5]
        down, across = height - self.size, width - self.size
        if height > width:
            return [(round(down * share), across // 2) for share in shares]
        return [(down // 2, round(across * share)) for share in shares]


@TRANSFORMS.register_module()
class PackClips(PackInputs):
    """Packs `frames` as uint8 `inputs`, (N_F, 3, H, W), of V > 1 views (V, N_F, 3, H, W); and a DataSample.

    Args:
        meta_keys: what the sample keeps of the results.
    """

    DEFAULT_META_KEYS = (
        'sample_idx',
        'video_path',
        'ori_shape',
        'img_shape',
        'frame_indices',
        'unreadable',
    )

    def __init__(self, meta_keys: Sequence[str] = DEFAULT_META_KEYS):
        super().__init__(input_key='clips', meta_keys=tuple(meta_keys))

    def transform(self, results: dict) -> dict:
        frames = np.stack([frame.transpose(2, 0, 1) for frame in results.pop('frames')])
        n = results['num_frames']
        views = len(frames) // n
        shape = (n, *frames.shape[1:]) if views == 1 else (views, n, *frames.shape[1:])
        results['clips'] = torch.from_numpy(frames).reshape(shape)
        return super().transform(results)
