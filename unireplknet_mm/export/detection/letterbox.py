"""Pictures of any size, fitted into one size: the larger side fills it, the rest is padding."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import Compose
from torch import Tensor, nn

from unireplknet_mm.export.errors import ExportError


class Placement(NamedTuple):
    """Where a picture went.

    Attributes:
        bounds: (4,) width, height, width, height of what boxes are cut to within the model's input: the
            picture, with what its pipeline pads it by.
        scale: (4,) by what its coordinates were multiplied.
        is_padding: (height, width) of the model's input, bool: what the data preprocessor pads; None where
            nothing is.
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
    fitted = (extent * (target / extent).min() + 0.5).floor().clamp(min=1)
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
    bounds = fitted.repeat(2)
    return sampled, Placement(bounds, (fitted / extent).repeat(2), _outside(bounds, height, width))


class PipelinePadding(nn.Module):
    """mmcv's or mmdet's `Pad` of a test pipeline, which fills with a colour before the mean is subtracted.

    Boxes are cut to what it makes, as mmdet cuts them.

    Args:
        settings: of the transform; its `size` becomes that of the letterbox.
        letterbox: (height, width).
        channels: of the images.

    Raises:
        ExportError: it pads with something else than a colour.
    """

    def __init__(self, settings: Mapping[str, Any], letterbox: Sequence[int], channels: int):
        super().__init__()
        mode = settings.get('padding_mode', 'constant')
        if mode != 'constant':
            raise ExportError(
                f"the test pipeline pads with padding_mode='{mode}', which --letterbox does not: leave it "
                'out, and fit pictures in front of the file.'
            )
        self.letterbox = tuple(letterbox)
        self.to_square = bool(settings.get('pad_to_square'))
        self.divisor = int(settings.get('size_divisor') or 1)
        self.fills = settings.get('size') is not None
        size = dict(size=self.letterbox[::-1]) if self.fills else {}
        self.transform = Compose([{**settings, **size}])
        kept = {key: settings[key] for key in ('type', 'pad_val') if key in settings}
        corner = Compose([dict(kept, size=(2, 2))])
        colour = corner(dict(img=np.zeros((1, 1, channels), dtype=np.uint8)))['img'][1, 1]
        self.register_buffer('colour', torch.from_numpy(colour).float()[:, None, None])

    def forward(self, fitted: Tensor, placement: Placement) -> tuple[Tensor, Placement]:
        """Fill what is no picture: images (N, C, height, width) with the channels of pipelines."""
        filled = torch.where(placement.is_padding, self.colour, fitted)
        limits = torch.tensor(self.letterbox[::-1], dtype=torch.float32, device=fitted.device)
        bounds = limits
        if not self.fills:
            bounds = placement.bounds[:2]
            if self.to_square:
                bounds = bounds.max().expand(2)
            bounds = torch.minimum((bounds / self.divisor).ceil() * self.divisor, limits)
        bounds = bounds.repeat(2)
        return filled, placement._replace(
            bounds=bounds, is_padding=_outside(bounds, *self.letterbox)
        )

    def by_pipeline(self, image: Tensor) -> Tensor:
        """What the transform itself makes of a picture (C, h, w), as far as the letterbox reaches."""
        array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        padded = torch.from_numpy(self.transform(dict(img=array))['img']).permute(2, 0, 1)
        height, width = self.letterbox
        return padded[:, :height, :width]


def _outside(bounds: Tensor, height: int, width: int) -> Tensor:
    """(height, width): whether a pixel lies beyond bounds (4,)."""
    x = torch.arange(width, device=bounds.device)
    y = torch.arange(height, device=bounds.device)
    return (y >= bounds[1])[:, None] | (x >= bounds[0])


def _extent(images: Tensor) -> Tensor:
    """(2,) width and height, as a tensor, since a file may leave them open."""
    height, width = images.shape[-2:]
    options = dict(dtype=torch.float32, device=images.device)
    return torch.stack((torch.full((), width, **options), torch.full((), height, **options)))
