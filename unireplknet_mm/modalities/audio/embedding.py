"""The bridge of audio: a batch of spectrograms as a batch of one-channel images."""

from mmengine.registry import MODELS
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError

AXES = ('time_freq', 'freq_time')


@MODELS.register_module()
class SpectrogramMap(nn.Module):
    """(B, T, F) -> (B, 1, T, F), Eq. 3; it has no parameters.

    Args:
        axes: 'time_freq', height is time, as the paper writes it; 'freq_time', (B, 1, F, T), as the
            authors' published code has it.
    """

    def __init__(self, axes: str = 'time_freq'):
        super().__init__()
        if axes not in AXES:
            raise ArgumentError(f'axes must be {" or ".join(AXES)}, got {axes!r}')
        self.axes = axes

    def forward(self, spectrograms: Tensor) -> Tensor:
        maps = spectrograms.unsqueeze(1)  # [B, 1, T, F]
        return maps if self.axes == 'time_freq' else maps.transpose(2, 3)

    def extra_repr(self) -> str:
        return f'axes={self.axes!r}'
