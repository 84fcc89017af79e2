"""What stands before a model of images: pixels in RGB become what its data preprocessor makes of them."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireplknet_mm.export.errors import ExportError

OVERSHOOT = 64  # what cubic resizing may add to 0 or 255: a quarter of their distance


class ImagePreprocessing(nn.Module):
    """Channel order, mean, std and padding of a toolbox's data preprocessor, for a batch of one size.

    Args:
        preprocessor: mmpretrain's, mmdet's or mmseg's; None leaves pixels as they are.
        channels: of the model's input.

    Raises:
        ExportError: it does something to images that is not known here.
    """

    def __init__(self, preprocessor: nn.Module | None, channels: int = 3):
        super().__init__()
        normalizes = bool(getattr(preprocessor, '_enable_normalize', False))
        shape = (-1, 1, 1)
        mean = preprocessor.mean.detach().reshape(shape).float() if normalizes else None
        std = preprocessor.std.detach().reshape(shape).float() if normalizes else None
        self.register_buffer('mean', mean, persistent=False)
        self.register_buffer('std', std, persistent=False)
        self.channels = channels
        # Pipelines read BGR; a model that does not swap the channels wants it.
        self.takes_bgr = channels == 3 and not _swaps_channels(preprocessor)
        self.pad_divisor = _pad_divisor(preprocessor)
        self.pad_value = float(_padding_value(preprocessor))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W), uint8 or float from 0 to 255, RGB -> what the backbone takes, in float32."""
        x = images.float()
        if self.takes_bgr:
            x = x.flip(1)
        if self.mean is not None:
            x = (x - self.mean) / self.std
        if self.pad_divisor > 1:
            height, width = x.shape[-2:]
            right, below = -width % self.pad_divisor, -height % self.pad_divisor
            x = F.pad(x, (0, right, 0, below), value=self.pad_value)
        return x

    def to_pipeline(self, images: Tensor) -> list[Tensor]:
        """The same images as the toolbox's pipelines give them to the data preprocessor: a list, in BGR."""
        return list(self.swap(images))

    def from_pipeline(self, image: Tensor) -> Tensor:
        """One image of a pipeline, (C, H, W), as a batch of one for the file.

        Grey and coloured ones become uint8, also where the pipeline computes in floats
        (`LoadImageFromFile(to_float32=True)`); images of other channels keep their type, which is the file's.

        Raises:
            ExportError: a coloured one has other values than 0 to 255.
        """
        if self.channels in (1, 3) and image.dtype != torch.uint8:
            image = _as_bytes(image)
        return self.swap(image[None])

    def swap(self, images: Tensor) -> Tensor:
        """From RGB, which the file takes, to BGR, which pipelines give, or back."""
        return images.flip(1) if self.channels == 3 else images

    def describe(self) -> dict[str, Any]:
        range = '0 to 255' if self.channels in (1, 3) else 'as the test pipeline gives them'
        return dict(
            channels='RGB' if self.channels == 3 else f'{self.channels} channels',
            values=f'{range}; mean, std and channel order of the training are in the file',
        )


def _as_bytes(image: Tensor) -> Tensor:
    """Round to uint8; what cubic resizing adds beyond 0 and 255 is cut off, as where it resizes bytes."""
    least, largest = image.min().item(), image.max().item()
    is_unit = largest <= 1 and not torch.equal(image, image.round())
    if is_unit or least < -OVERSHOOT or largest > 255 + OVERSHOOT:
        raise ExportError(
            f'the test pipeline gives values from {least:.4g} to {largest:.4g}, and files take pixels from 0 '
            'to 255 in uint8: leave scaling and subtraction to the data preprocessor (mean, std).'
        )
    return image.round().clamp(0, 255).to(torch.uint8)


def _swaps_channels(preprocessor: nn.Module | None) -> bool:
    names = ('to_rgb', 'channel_conversion', '_channel_conversion')
    return any(bool(getattr(preprocessor, name, False)) for name in names)


def _pad_divisor(preprocessor: nn.Module | None) -> int:
    """What heights and widths are padded to a multiple of, when the model is tested."""
    if not hasattr(preprocessor, 'test_cfg'):
        return int(getattr(preprocessor, 'pad_size_divisor', 1) or 1)
    settings = preprocessor.test_cfg or {}  # of mmseg, whose other settings are those of training
    if settings.get('size') is not None:
        raise ExportError(
            f'the data preprocessor pads images to {tuple(settings["size"])}: have it pad to a multiple '
            '(--cfg-options model.data_preprocessor.test_cfg.size_divisor=32).'
        )
    return int(settings.get('size_divisor') or 1)


def _padding_value(preprocessor: nn.Module | None) -> float:
    value = getattr(preprocessor, 'pad_value', getattr(preprocessor, 'pad_val', 0)) or 0
    if isinstance(value, Sequence):
        raise ExportError(
            'the data preprocessor pads each channel with another value: pad with one.'
        )
    return value


def random_images(batch_size: int, shape: Sequence[int]) -> Tensor:
    """(batch_size, C, H, W), uint8, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch_size, *shape), dtype=torch.uint8, generator=generator)
