"""What is taken off a window before a model sees it, and put back on its forecast; moving averages."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unireplknet_mm.errors import ArgumentError

NORMALIZATIONS = ('mean_std', 'mean', 'last', None)
EPSILON = 1e-5  # added to a variance; a constant window is not divided by zero


class InstanceStatistics(nn.Module):
    """Level and scale of each variable of each window: off the input, back on the forecast.

    The instance normalisation of RevIN (Kim et al., ICLR 2022) without its learned factors. It has no
    parameters; gradients flow through the statistics as through the rest.

    Args:
        kind: 'mean_std' takes off the mean and divides by the deviation over the window; 'mean' and 'last',
            as in NLinear, take off the mean or the last value alone; None does nothing.

    Raises:
        ArgumentError: an unknown kind.
    """

    def __init__(self, kind: str | None = 'mean_std'):
        super().__init__()
        if kind not in NORMALIZATIONS:
            raise ArgumentError(
                f'the normalization is one of {", ".join(map(repr, NORMALIZATIONS))}, not {kind!r}'
            )
        self.kind = kind

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """(B, L, D) -> the same, normalised, and level and scale, (B, 1, D) or None, for `restore`."""
        if self.kind is None:
            return x, None, None
        level = x[:, -1:] if self.kind == 'last' else x.mean(dim=1, keepdim=True)
        x = x - level
        if self.kind != 'mean_std':
            return x, level, None
        scale = torch.sqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)
        return x / scale, level, scale

    @staticmethod
    def restore(forecast: Tensor, level: Tensor | None, scale: Tensor | None) -> Tensor:
        """A forecast (B, H, D) in the values of the window it was made from."""
        if scale is not None:
            forecast = forecast * scale
        return forecast if level is None else forecast + level


def moving_average(x: Tensor, size: int) -> Tensor:
    """The trend of (B, L, D): the mean of `size` rows around each, the ends repeated beyond the window.

    As in Autoformer and DLinear, for odd sizes.
    """
    half = size // 2
    padded = F.pad(x.transpose(1, 2), (half, half), mode='replicate')
    return F.avg_pool1d(padded, size, stride=1).transpose(1, 2)


def check_moving_average(size: int) -> None:
    """Raise `ArgumentError` unless `size` is 0, for none, or odd and at least 3."""
    if size != 0 and (size < 3 or size % 2 == 0):
        raise ArgumentError(
            f'decomposition is the odd size of a moving average, 3 at least, or 0 for none, not {size}'
        )
