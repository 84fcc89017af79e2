"""Pictures of any size, fitted into one size: the larger side fills it, the rest is padding."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Placement(NamedTuple):
    """Where a picture went.

    Attributes:
        bounds: (4,) its width, height, width, height within the model's input.
        scale: (4,) by what its coordinates were multiplied.
        is_padding: (height, width) of the model's input, bool; None where nothing is padded.
    """

    bounds: Tensor
    scale: Tensor
    is_padding: Tensor | None = None


def whole(images: Tensor) -> Placement:
    """Of images that are the model's input as they are."""
    bounds = _extent(images).repeat(2)
    return Placement(bounds, torch.ones_like(bounds))


def fit(images: Tensor, height: int, width: int) -> tuple[Tensor, Placement]:
    """Resize images (N, C, H, W) to fit into (height, width), the picture at the top left.

    Sizes, scales and interpolation (bilinear, without smoothing) are those of mmcv's `imresize` and mmdet's
    `Resize(keep_ratio=True)`, but for its rounding to whole colours. The positions are computed and
    sampled in one go, since the size of what a plain resizing yields would be known at run time only.
    """
    extent = _extent(images)
    target = torch.tensor([width, height], dtype=torch.float32, device=images.device)
    fitted = (extent * (target / extent).min() + 0.5).floor()
    x = torch.arange(width, device=images.device, dtype=torch.float32)
    y = torch.arange(height, device=images.device, dtype=torch.float32)
    grid = torch.stack(
        (
            ((2 * x + 1) / fitted[0] - 1).expand(height, width),
            ((2 * y + 1) / fitted[1] - 1)[:, None].expand(height, width),
        ),
        dim=-1,
    )
    sampled = F.grid_sample(
        images,
        grid.expand(images.shape[0], -1, -1, -1),
        mode='bilinear',
        padding_mode='border',
        align_corners=False,
    )
    is_padding = (y >= fitted[1])[:, None] | (x >= fitted[0])
    return sampled, Placement(fitted.repeat(2), (fitted / extent).repeat(2), is_padding)


def _extent(images: Tensor) -> Tensor:
    """(2,) width and height, as a tensor, since a file may leave them open."""
    height, width = images.shape[-2:]
    options = dict(dtype=torch.float32, device=images.device)
    return torch.stack((torch.full((), width, **options), torch.full((), height, **options)))
