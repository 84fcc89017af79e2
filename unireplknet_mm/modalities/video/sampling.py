"""Which frames of a video are shown to the network."""

import numpy as np

from unireplknet_mm.errors import ArgumentError

SAMPLINGS = ('dense', 'uniform')


def sample_dense(
    length: int, num_frames: int, stride: int, num_clips: int = 1, random: bool = False
) -> np.ndarray:
    """Clips of frames `stride` apart, as 16×4 of the paper: a window onto the video.

    Args:
        length: frames of the video, at least 1.
        num_clips: with 1 the clip is in the middle of the video; more are spread evenly from its beginning
            to its end.
        random: clips anywhere in the video instead, by NumPy's global generator.

    Returns:
        (num_clips, num_frames) frame numbers. Of a video that is shorter than the window the last frame is
        repeated.
    """
    room = max(0, length - ((num_frames - 1) * stride + 1))
    if random:
        starts = np.random.randint(room + 1, size=num_clips)
    elif num_clips == 1:
        starts = np.array([room // 2])
    else:
        starts = np.linspace(0, room, num_clips).round().astype(int)
    indices = starts[:, None] + np.arange(num_frames) * stride
    return np.minimum(indices, length - 1)


def sample_uniform(
    length: int, num_frames: int, num_clips: int = 1, random: bool = False
) -> np.ndarray:
    """Frames from all over the video: it is cut into `num_frames` equal parts, and one is taken of each.

    Args:
        length: frames of the video, at least 1.
        num_clips: with 1 the frame is in the middle of each part; more clips take others, evenly spread.
        random: any frame of each part instead, by NumPy's global generator.

    Returns:
        (num_clips, num_frames) frame numbers, which repeat in a video that has fewer frames.
    """
    if random:
        offsets = np.random.random((num_clips, num_frames))
    else:
        offsets = (np.arange(num_clips)[:, None] + 0.5) / num_clips
    indices = (np.arange(num_frames) + offsets) * length / num_frames
    return np.minimum(indices.astype(int), length - 1)


def check_sampling(sampling: str, num_frames: int, stride: int, num_clips: int) -> None:
    """Raise `ArgumentError` for values that are out of range."""
    if sampling not in SAMPLINGS:
        raise ArgumentError(f'sampling must be one of {", ".join(SAMPLINGS)}, not {sampling!r}')
    for name, value in dict(num_frames=num_frames, stride=stride, num_clips=num_clips).items():
        if value < 1:
            raise ArgumentError(f'{name} must be at least 1, not {value}')
