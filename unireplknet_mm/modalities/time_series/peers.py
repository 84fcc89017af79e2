"""What the forecaster is compared with: a page each, written from the papers' definitions.

Seasonal naive; DLinear and NLinear (Zeng et al., "Are Transformers Effective for Time Series Forecasting?",
AAAI 2023); PatchTST (Nie et al., "A Time Series is Worth 64 Words", ICLR 2023). All treat the variables alike
and apart, with shared weights.
"""

import math
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series.base import SeriesModel
from unireplknet_mm.modalities.time_series.statistics import (
    InstanceStatistics,
    check_moving_average,
    moving_average,
)


def repeat_season(x: Tensor, horizon: int, season: int) -> Tensor:
    """The last `season` rows of (B, L, D), over and over: (B, horizon, D)."""
    return x[:, -season:].repeat(1, math.ceil(horizon / season), 1)[:, :horizon]


@MODELS.register_module()
class SeasonalNaive(SeriesModel):
    """What was one season ago; with `season=1`, what was last (persistence). There is nothing to train."""

    def __init__(self, season: int = 24, **kwargs: Any):
        super().__init__(**kwargs)
        if not 1 <= season <= self.look_back:
            raise ArgumentError(
                f'season={season} must be from 1 to the look-back of {self.look_back} rows'
            )
        self.season = season

    def forecast(self, inputs: Tensor, calendar: Tensor | None = None) -> Tensor:
        return repeat_season(inputs, self.horizon, self.season)


@MODELS.register_module()
class NLinear(SeriesModel):
    """A linear layer from window to forecast, both less the last value of the window."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.statistics = InstanceStatistics('last')
        self.linear = nn.Linear(self.look_back, self.horizon)

    def forecast(self, inputs: Tensor, calendar: Tensor | None = None) -> Tensor:
        x, level, scale = self.statistics(inputs)
        forecast = self.linear(x.transpose(1, 2)).transpose(1, 2)
        return self.statistics.restore(forecast, level, scale)


@MODELS.register_module()
class DLinear(SeriesModel):
    """A linear layer for the trend, a moving average of the window, and one for the rest."""

    def __init__(self, decomposition: int = 25, **kwargs: Any):
        super().__init__(**kwargs)
        check_moving_average(decomposition)
        self.decomposition = decomposition
        self.trend = nn.Linear(self.look_back, self.horizon)
        self.rest = nn.Linear(self.look_back, self.horizon)

    def forecast(self, inputs: Tensor, calendar: Tensor | None = None) -> Tensor:
        trend = moving_average(inputs, self.decomposition)
        rest = inputs - trend
        forecast = self.trend(trend.transpose(1, 2)) + self.rest(rest.transpose(1, 2))
        return forecast.transpose(1, 2)


@MODELS.register_module()
class PatchTST(SeriesModel):
    """A Transformer encoder over patches of each variable, and a linear layer.

    The defaults are those of the paper for small sets such as ETTh (its appendix). Its text is followed; the
    residual attention scores of its published code are not in the text and are left out.

    Args:
        patch: rows of a patch.
        stride: rows from one patch to the next. Behind the window its last value is repeated `stride` times.
        channels, heads, layers, feed_forward, dropout: of the encoder.

    Raises:
        ArgumentError: a patch is longer than the window, or the heads do not divide the channels.
    """

    def __init__(
        self,
        patch: int = 16,
        stride: int = 8,
        channels: int = 16,
        heads: int = 4,
        layers: int = 3,
        feed_forward: int = 128,
        dropout: float = 0.3,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if patch > self.look_back + stride:
            raise ArgumentError(
                f'patch={patch} is longer than the look-back of {self.look_back} rows'
            )
        if channels % heads:
            raise ArgumentError(f'heads={heads} do not divide channels={channels}')
        self.patch, self.stride = patch, stride
        patches = (self.look_back + stride - patch) // stride + 1
        self.statistics = InstanceStatistics('mean_std')
        self.tokens = nn.Linear(patch, channels)
        self.position = nn.Parameter(torch.empty(patches, channels).uniform_(-0.02, 0.02))
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.Sequential(
            *(EncoderLayer(channels, heads, feed_forward, dropout) for _ in range(layers))
        )
        self.head = nn.Linear(patches * channels, self.horizon)

    def forecast(self, inputs: Tensor, calendar: Tensor | None = None) -> Tensor:
        x, level, scale = self.statistics(inputs)
        batch_size, _, variables = x.shape
        x = F.pad(x.transpose(1, 2), (0, self.stride), mode='replicate')  # [B, D, L + stride]
        patches = x.unfold(-1, self.patch, self.stride).flatten(0, 1)  # [B·D, patches, patch]
        tokens = self.encoder(self.dropout(self.tokens(patches) + self.position))
        forecast = self.head(tokens.flatten(1)).reshape(batch_size, variables, -1).transpose(1, 2)
        return self.statistics.restore(forecast, level, scale)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added and followed by BatchNorm: (N, T, C) -> (N, T, C)."""

    def __init__(self, channels: int, heads: int, feed_forward: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, feed_forward),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feed_forward, channels),
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self._normalised(x + F.dropout(self._attend(x), self.dropout, self.training), 0)
        return self._normalised(x + F.dropout(self.feed_forward(x), self.dropout, self.training), 1)

    def _attend(self, x: Tensor) -> Tensor:
        number, length, _ = x.shape
        # [3, N, heads, T, C/heads]
        q, k, v = self.qkv(x).reshape(number, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def _normalised(self, x: Tensor, i: int) -> Tensor:
        return self.norms[i](x.transpose(1, 2)).transpose(1, 2)
