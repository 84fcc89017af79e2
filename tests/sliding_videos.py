"""Small videos for the tests: a textured picture that slides, so that no two frames are alike."""

from pathlib import Path

import cv2
import numpy as np

from unireplknet_mm.datasets.video_files import import_av, write_video


def sliding_frames(count: int, size: tuple[int, int] = (64, 48), seed: int = 0) -> list[np.ndarray]:
    """(h, w, 3) uint8 frames of size (width, height)."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 256, (height, 2 * width, 3), dtype=np.uint8)
    picture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    return [np.roll(picture, -i, axis=1)[:, :width] for i in range(count)]


def write_sliding(path: Path, count: int = 40, size: tuple[int, int] = (64, 48), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, sliding_frames(count, size), **options)
    return path


def decode_whole(path: Path) -> list[np.ndarray]:
    """All frames of a file, decoded from its beginning."""
    with import_av().open(str(path)) as container:
        return [frame.to_ndarray(format='bgr24') for frame in container.decode(video=0)]


def cut_off(path: Path, share: float) -> Path:
    """The first part of a file, as another file beside it."""
    content = path.read_bytes()
    part = path.with_name(f'part{share}{path.suffix}')
    part.write_bytes(content[: int(len(content) * share)])
    return part
