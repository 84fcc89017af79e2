"""A window of a series as a map of one channel (§3.3, Eq. 2), for a backbone made for images.

(B, L, D) -> (B·n, L, D/n) -> (B·n, L, D') -> (B·n, 1, H, W) with H·W = L·D'. The D variables are split into
n nodes, each of which becomes a map of its own; a node's D/n values of a time step become D' numbers by the
embedding of Corrformer (and Informer before it): a convolution over three time steps, plus what the calendar
and the position in the window say. The last step is a reshape: the map is read like a page, D' numbers a
time step, W a line.
"""

import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series.series import CALENDAR
from unireplknet_mm.modalities.time_series.statistics import check_moving_average, moving_average

MAX_ASPECT = 2  # of a near-square map: its longer side over the shorter


@MODELS.register_module()
class SeriesMap(BaseModule):
    """Eq. 2: (B, L, D) and its calendar (B, L, 5) -> (B·nodes, 1, H, W).

    Args:
        look_back: L, the time steps of a window.
        variables: D.
        channels: D', the numbers that a time step of a node becomes.
        nodes: n. As many as `variables` treats each variable alone, with shared weights
            (channel-independent); 1 puts all of them into one map (channel-mixing); what lies between groups
            neighbours.
        kernel_size: of the convolution over time, odd; its ends are wrapped, as in Corrformer.
        decomposition: the size of a moving average that splits each variable into trend and rest before the
            convolution; 0 does not.
        calendar: whether the calendar is embedded (a linear map of its five features).
        position: 'sinusoidal' (fixed), 'learned' or None.
        dropout: rate, behind the sum of the embeddings.
        map_size: (H, W); by default the most square one.

    Raises:
        ArgumentError: nodes do not divide the variables; a size is out of range; L·D' has no near-square H·W
            (sides of 1 to 2 at most), or `map_size` is another number of values.
    """

    def __init__(
        self,
        look_back: int,
        variables: int,
        channels: int,
        nodes: int = 1,
        kernel_size: int = 3,
        decomposition: int = 0,
        calendar: bool = True,
        position: str | None = 'sinusoidal',
        dropout: float = 0.0,
        map_size: Sequence[int] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        if nodes < 1 or variables % nodes:
            raise ArgumentError(f'{variables} variables cannot be split into nodes={nodes} alike')
        if kernel_size < 1 or kernel_size % 2 == 0 or kernel_size // 2 > look_back:
            raise ArgumentError(
                f'kernel_size={kernel_size} must be odd and at most twice the look-back of {look_back}'
            )
        if position not in ('sinusoidal', 'learned', None):
            raise ArgumentError(
                f"position must be 'sinusoidal', 'learned' or None, not {position!r}"
            )
        check_moving_average(decomposition)
        self.nodes, self.decomposition = nodes, decomposition
        self.map_size = resolve_map_size(look_back, channels, map_size)
        inputs = variables // nodes * (2 if decomposition else 1)
        self.value = nn.Conv1d(
            inputs,
            channels,
            kernel_size,
            padding=kernel_size // 2,
            padding_mode='circular',
            bias=False,
        )
        self.calendar = nn.Linear(len(CALENDAR), channels, bias=False) if calendar else None
        if position == 'learned':
            self.position = nn.Parameter(0.02 * torch.randn(look_back, channels))
        else:
            code = sinusoids(look_back, channels) if position else None
            # Fixed, so it need not be in checkpoints.
            self.register_buffer('position', code, persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, calendar: Tensor | None = None) -> Tensor:
        """(B, L, D), (B, L, 5) -> (B·nodes, 1, H, W); without a calendar its embedding is left out."""
        batch_size, look_back, _ = x.shape
        parts = [x]
        if self.decomposition:
            trend = moving_average(x, self.decomposition)
            parts = [trend, x - trend]
        # [B, L, n, D/n, parts] -> [B, n, parts, D/n, L]
        by_node = torch.stack(
            [part.reshape(batch_size, look_back, self.nodes, -1) for part in parts], dim=-1
        ).permute(0, 2, 4, 3, 1)
        tokens = self.value(by_node.reshape(batch_size * self.nodes, -1, look_back)).transpose(1, 2)
        if self.position is not None:
            tokens = tokens + self.position
        if self.calendar is not None and calendar is not None:
            tokens = tokens + self.calendar(calendar).repeat_interleave(self.nodes, dim=0)
        return self.dropout(tokens).reshape(-1, 1, *self.map_size)


def near_square(values: int) -> tuple[int, int] | None:
    """H ≤ W with H·W = `values`, W as small as can be; None if it is more than twice H."""
    height = next(h for h in range(math.isqrt(values), 0, -1) if values % h == 0)
    width = values // height
    return (height, width) if width <= MAX_ASPECT * height else None


def resolve_map_size(
    look_back: int, channels: int, map_size: Sequence[int] | None = None
) -> tuple[int, int]:
    """H and W of a map of `look_back` time steps with `channels` numbers each: those given, or near-square.

    Raises:
        ArgumentError: there are none.
    """
    if look_back < 1 or channels < 1:
        raise ArgumentError(
            f'look_back={look_back} and channels={channels} of the embedding must be at least 1'
        )
    values = look_back * channels
    if map_size is not None:
        if len(map_size) != 2 or min(map_size) < 1 or math.prod(map_size) != values:
            raise ArgumentError(
                f'map_size={tuple(map_size)} must be H and W with H·W = look_back·channels = '
                f'{look_back}·{channels} = {values}'
            )
        return tuple(map_size)
    found = near_square(values)
    if found is None:
        near = sorted(range(1, 4 * channels + 64), key=lambda c: (abs(c - channels), c))
        others = [c for c in near if near_square(look_back * c)][:3]
        raise ArgumentError(
            f'look_back·channels = {look_back}·{channels} = {values} is no near-square map: no H·W has sides '
            f'of 1 to {MAX_ASPECT} at most.\nSet channels of the embedding to '
            f'{" or ".join(map(str, others))}, another look_back, or map_size=(H, W).'
        )
    return found


def sinusoids(length: int, channels: int) -> Tensor:
    """The position code of the Transformer, (length, channels): sines in the even, cosines in the odd."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    index = torch.arange(channels, dtype=torch.float32)[None]
    angle = position / 10000 ** (2 * (index // 2) / channels)
    return torch.where(index % 2 == 0, angle.sin(), angle.cos())
