"""Videos, for `tools/predict.py`: read by the config's test pipeline, drawn as the network sees them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from unireplknet_mm.modalities.inputs import INPUT_KINDS, InputKind
from unireplknet_mm.modalities.predictions import ClassPrediction
from unireplknet_mm.modalities.video.datasets import VIDEOS, is_frame_folder
from unireplknet_mm.modalities.video.frame_grid import FrameGrid

SMALLEST_WIDTH = 320  # in pixels, of a picture that classes are written under
LINES = 3  # of classes and their scores
LINE_HEIGHT = 20
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def draw_clip(clip: Tensor, lines: Sequence[str] = (), layout: str = 'grid') -> np.ndarray:
    """The frames as one image, and lines of text below it.

    Args:
        clip: (N_F, 3, H, W) uint8 in BGR.
        layout: how the frames are laid out, as of the model's `FrameGrid`.

    Returns:
        (H', W', 3) uint8 in RGB; small grids are enlarged, pixel by pixel.
    """
    grid = FrameGrid(len(clip), layout, pad=True)(clip[None].float())[0]
    picture = grid.byte().flip(0).permute(1, 2, 0).cpu().numpy()
    factor = -(-SMALLEST_WIDTH // picture.shape[1])
    picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    strip = np.full((LINE_HEIGHT * len(lines), picture.shape[1], 3), WHITE, np.uint8)
    for number, line in enumerate(lines, start=1):
        bottom = (6, LINE_HEIGHT * number - 6)
        cv2.putText(strip, line, bottom, cv2.FONT_HERSHEY_SIMPLEX, 0.45, BLACK, 1, cv2.LINE_AA)
    return np.concatenate([picture, strip])


@INPUT_KINDS.register_module()
class Videos(InputKind):
    """Files of videos, and folders of pictures."""

    name = 'videos'
    loaders = ('LoadVideo',)
    suffixes = VIDEOS
    picture_suffix = '.png'

    def is_input(self, folder: Path) -> bool:
        return is_frame_folder(folder)

    def sample(self, path: Path, index: int) -> dict[str, Any]:
        return dict(video_path=str(path), sample_idx=index)

    def draw(
        self, prediction: ClassPrediction, transforms: Sequence[Any], config: dict
    ) -> np.ndarray:
        """The clip, of several views the middle one, with the best classes."""
        clips = prediction.inputs
        clip = clips[len(clips) // 2] if clips.dim() == 5 else clips
        layout = config['model']['embedding'].get('layout', 'grid')
        return draw_clip(clip, prediction.lines()[:LINES], layout)
