"""The frames of a video as one image: Eq. 5 of the paper (§3.3), and what its published code does instead.

`layout='grid'` lays the frames out row by row, as one reads: 16 frames of 224×224 become four rows of four,
896×896. `layout='reshape'` is the published code's `reshape(B, C, 4H, 4W)` of a tensor (B, C, N_F, H, W): of
16 frames each becomes a band of H/4 rows in which four of its rows stand side by side. Weights that were
trained on one do not fit the other.

What the order does: neither layout tells the network which frame is where, but a convolution over the grid
sees two frames that follow each other side by side, w pixels apart, and frames a row apart, h pixels below.
Kernels that reach across that distance compare them; the borders of the grid (zero padding) and of the
frames are all that tells the first frame from the last. A video played backwards is another image, so
classes that differ in direction alone can be told apart, which the mean over single frames cannot.
"""

import math

import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from unireplknet_mm.errors import ArgumentError

LAYOUTS = ('grid', 'reshape')


def grid_shape(num_frames: int, pad: bool = False) -> tuple[int, int]:
    """Rows and columns of the grid: rows are the largest divisor of the frames that is at most their root.

    Args:
        num_frames: N_F, at least 1.
        pad: whether empty places at the end are allowed: the frames are then counted up to the next number
            that is 1, 2, 3 or no prime.

    Raises:
        ArgumentError: a prime above 3, which only fits in one long row.
    """
    if num_frames < 1:
        raise ArgumentError(f'num_frames must be at least 1, not {num_frames}')
    rows = max(rows for rows in range(1, math.isqrt(num_frames) + 1) if num_frames % rows == 0)
    if rows > 1 or num_frames <= 3:
        return rows, num_frames // rows
    if pad:
        return grid_shape(num_frames + 1)
    raise ArgumentError(
        f'{num_frames} frames, a prime number, would make a single row: use {num_frames - 1} or '
        f'{num_frames + 1} frames, or pad=True for an empty place at the end of the grid'
    )


@MODELS.register_module()
class FrameGrid(BaseModule):
    """(B, N_F, C, H, W) -> (B, C, rows·H, columns·W), without parameters and exactly invertible.

    Args:
        num_frames: N_F.
        layout: 'grid', the paper's, or 'reshape', the published code's; see above.
        pad: lets a prime number of frames above 3 have a grid with an empty place, of zeros, at its end.

    Raises:
        ArgumentError: a prime number of frames above 3 without `pad`, or an unknown layout.
    """

    def __init__(self, num_frames: int = 16, layout: str = 'grid', pad: bool = False):
        super().__init__()
        if layout not in LAYOUTS:
            raise ArgumentError(f'layout must be one of {", ".join(LAYOUTS)}, not {layout!r}')
        self.num_frames = num_frames
        self.layout = layout
        self.rows, self.columns = grid_shape(num_frames, pad)

    def forward(self, clips: Tensor) -> Tensor:
        b, n, c, h, w = clips.shape
        if n != self.num_frames:
            raise ArgumentError(
                f'the grid is for clips of {self.num_frames} frames, and gets {n}: set num_frames of the '
                'embedding and of the pipeline to the same number'
            )
        if empty := self.rows * self.columns - n:
            # zeros: the mean colour after normalisation
            clips = F.pad(clips, (0, 0, 0, 0, 0, 0, 0, empty))
        if self.layout == 'reshape':
            return clips.transpose(1, 2).reshape(b, c, self.rows * h, self.columns * w)
        grid = clips.unflatten(1, (self.rows, self.columns))  # [B, rows, columns, C, H, W]
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(b, c, self.rows * h, self.columns * w)

    def inverse(self, images: Tensor) -> Tensor:
        """(B, C, rows·H, columns·W) -> (B, N_F, C, H, W), exactly what `forward` laid out.

        Raises:
            ArgumentError: height or width are no multiples of the grid's.
        """
        b, c, height, width = images.shape
        if height % self.rows or width % self.columns:
            raise ArgumentError(
                f'an image {height}x{width} is no grid of {self.rows}x{self.columns} frames'
            )
        h, w = height // self.rows, width // self.columns
        if self.layout == 'reshape':
            clips = images.reshape(b, c, self.rows * self.columns, h, w).transpose(1, 2)
        else:
            grid = images.reshape(b, c, self.rows, h, self.columns, w)
            clips = grid.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        return clips[:, : self.num_frames]

    def extra_repr(self) -> str:
        return f'{self.num_frames} frames as {self.rows}x{self.columns}, layout={self.layout!r}'
