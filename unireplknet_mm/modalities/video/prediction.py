"""Videos, for `tools/predict.py`: read by the config's test pipeline, drawn as the network sees them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.font_manager import FontProperties, findfont
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unireplknet_mm.modalities.inputs import INPUT_KINDS, InputKind
from unireplknet_mm.modalities.predictions import ClassPrediction
from unireplknet_mm.modalities.video.datasets import VIDEOS, is_frame_folder
from unireplknet_mm.modalities.video.frame_grid import FrameGrid

SMALLEST_WIDTH = 320  # in pixels, of a picture that classes are written under
LINES = 3  # of classes and their scores
LINE_HEIGHT = 20
TEXT_SIZE = 13  # in pixels
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def draw_clip(clip: Tensor, lines: Sequence[str] = (), layout: str = 'grid') -> np.ndarray:
    """The frames as one image, and lines of text below it, in the font that matplotlib is set to.

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
    strip = Image.new('RGB', (picture.shape[1], LINE_HEIGHT * len(lines)), WHITE)
    pen, font = ImageDraw.Draw(strip), ImageFont.truetype(findfont(FontProperties()), TEXT_SIZE)
    for number, line in enumerate(lines, start=1):
        pen.text((6, LINE_HEIGHT * number - 6), line, BLACK, font, anchor='ls')
    return np.concatenate([picture, np.asarray(strip)])


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
