"""The paper's model of global weather (§4.2, Table 12): UniRepLKNet in front of Corrformer's decoder.

What the decoder attends to is derived: the published code of UniRepLKNet hands it the logits of 1,000
classes, which do not reshape to its width of 768. Here the encoder's last map, of C channels, is read as h·w
tokens of C numbers (36 of 768 for maps of 192×192 and UniRepLKNet-S), which the correlations pad with zeros
to the length of their queries, as they do in Corrformer with whatever is shorter.
"""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series.base import SeriesModel
from unireplknet_mm.modalities.time_series.correlation import MultiCorrelation
from unireplknet_mm.modalities.time_series.embedding import resolve_map_size
from unireplknet_mm.modalities.time_series.forecaster import last_map_shape
from unireplknet_mm.modalities.time_series.series import CALENDAR
from unireplknet_mm.modalities.time_series.statistics import (
    EPSILON,
    check_moving_average,
    moving_average,
)

PLACE = 3  # numbers that tell where a station is: latitude, longitude and height


class StationEmbedding(nn.Module):
    """Values, calendar and places of a node's stations: (B·n, L, D/n) -> (B·n, L, D').

    Args:
        stations: D/n.
        channels: D'.
        dropout: rate, behind their sum.
    """

    def __init__(self, stations: int, channels: int, dropout: float = 0.0):
        super().__init__()
        self.value = nn.Conv1d(
            stations, channels, 3, padding=1, padding_mode='circular', bias=False
        )
        self.calendar = nn.Linear(len(CALENDAR), channels, bias=False)
        self.place = nn.Linear(PLACE * stations, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, calendar: Tensor | None, places: Tensor) -> Tensor:
        """`calendar`: (B, L, 5), or None to leave it out; `places`: (n, 3 · D/n)."""
        tokens = self.value(x.transpose(1, 2)).transpose(1, 2).unflatten(0, (-1, len(places)))
        tokens = tokens + self.place(places)[:, None]
        if calendar is not None:
            tokens = tokens + self.calendar(calendar)[:, None]
        return self.dropout(tokens.flatten(0, 1))


class DecoderLayer(nn.Module):
    """Self and cross multi-correlation and a feed-forward; after each the trend is taken off."""

    def __init__(
        self,
        channels: int,
        heads: int,
        feed_forward: int,
        stations: int,
        tree: Sequence[int],
        length: int,
        decomposition: int,
        dropout: float,
    ):
        super().__init__()
        self.own, self.other = (
            MultiCorrelation(channels, heads, tree, length, dropout) for _ in range(2)
        )
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, feed_forward, bias=False),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feed_forward, channels, bias=False),
            nn.Dropout(dropout),
        )
        self.trend = nn.Conv1d(
            channels, stations, 3, padding=1, padding_mode='circular', bias=False
        )
        self.decomposition = decomposition

    def forward(self, x: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """(B·n, L, D'), (B·n, S, D') -> the rest (B·n, L, D') and the trend (B·n, L, D/n)."""
        trends = []
        for part in (self.own, partial(self.other, source=source), self.feed_forward):
            x = x + part(x)
            trends.append(moving_average(x, self.decomposition))
            x = x - trends[-1]
        return x, self.trend(sum(trends).transpose(1, 2)).transpose(1, 2)


@MODELS.register_module()
class WeatherForecaster(SeriesModel):
    """Stations on a tree of nodes: (B, look_back, D) -> (B, horizon, D), D stations in n nodes.

    The variables are ordered by node, as the published files are sorted. Level and scale of each station's
    window are taken off and put back. Where the stations are is the buffer `places`, which `set_places` fills
    and checkpoints hold.

    Args:
        backbone: the encoder, for maps of one channel; its last map must have `channels` channels.
        tree: how often each level branches, such as (7, 50) for 350 nodes.
        channels: D' of Eq. 2, and the decoder's width.
        label: rows of the past that the decoder begins with.
        heads, feed_forward, layers, decomposition, dropout: of the decoder.
        **kwargs: of `SeriesModel`: look_back, horizon, variables (D, the stations), loss.

    Raises:
        ArgumentError: the tree does not divide the stations, or sizes do not fit.
    """

    def __init__(
        self,
        backbone: dict,
        tree: Sequence[int],
        channels: int = 768,
        label: int = 24,
        heads: int = 16,
        feed_forward: int = 2048,
        layers: int = 1,
        decomposition: int = 25,
        dropout: float = 0.05,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.nodes = prod(tree)
        if not tree or min(tree) < 1:
            raise ArgumentError(
                f'tree={tuple(tree)} must have a level, and 1 branch or more in each'
            )
        if self.variables % self.nodes:
            raise ArgumentError(
                f'{self.variables} stations cannot be split into the {self.nodes} nodes of tree={tuple(tree)}'
            )
        if not 0 < label <= self.look_back:
            raise ArgumentError(
                f'label={label} must be from 1 to the look-back of {self.look_back}'
            )
        check_moving_average(decomposition)
        stations = self.variables // self.nodes
        self.label, self.decomposition = label, decomposition
        self.map_size = resolve_map_size(self.look_back, channels)
        self.embedding, self.decoder_embedding = (
            StationEmbedding(stations, channels, dropout) for _ in range(2)
        )
        self.backbone = MODELS.build(backbone)
        found = last_map_shape(self.backbone, self.map_size)[0]
        if found != channels:
            raise ArgumentError(
                f'the last map of the backbone has {found} channels, the decoder {channels}'
            )
        self.decoder = nn.ModuleList(
            DecoderLayer(
                channels,
                heads,
                feed_forward,
                stations,
                tree,
                label + self.horizon,
                decomposition,
                dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, stations)
        self.factor = nn.Parameter(torch.ones(stations))
        self.offset = nn.Parameter(torch.zeros(stations))
        self.register_buffer('places', torch.zeros(self.nodes, PLACE * stations))

    def set_places(self, places: np.ndarray) -> None:
        """Say where the stations are: (D, 3), each column of which is standardised over the stations.

        Raises:
            ArgumentError: there are more or fewer stations.
        """
        if np.shape(places) != (self.variables, PLACE):
            raise ArgumentError(
                f'{type(self).__name__} has {self.variables} stations of {PLACE} numbers each, not places of '
                f'{" × ".join(map(str, np.shape(places)))}'
            )
        mean, deviation = np.mean(places, axis=0), np.std(places, axis=0)
        standard = (places - mean) / np.where(deviation > 0, deviation, 1)
        self.places.copy_(torch.as_tensor(standard).reshape(self.places.shape))

    def forecast(self, inputs: Tensor, calendar: Tensor | None = None) -> Tensor:
        past_calendar = future_calendar = None
        if calendar is not None:
            rows = self.look_back + self.horizon
            if calendar.shape[1] != rows:
                raise ArgumentError(
                    f'{type(self).__name__} needs the calendar of past and future, {rows} rows, not '
                    f'{calendar.shape[1]}'
                )
            past_calendar = calendar[:, : self.look_back]
            future_calendar = calendar[:, self.look_back - self.label :]
        # [B, L, D] -> [B·n, L, D/n]
        x = inputs.unflatten(2, (self.nodes, -1)).transpose(1, 2).flatten(0, 1)
        mean = x.mean(dim=1, keepdim=True)
        x = x - mean
        scale = torch.sqrt(x.square().mean(dim=1, keepdim=True) + EPSILON)
        x = x / scale * self.factor + self.offset
        trend = moving_average(x, self.decomposition)
        rest = F.pad((x - trend)[:, -self.label :], (0, 0, 0, self.horizon))
        level = x.mean(dim=1, keepdim=True).expand(-1, self.horizon, -1)
        trend = torch.cat([trend[:, -self.label :], level], dim=1)

        tokens = self.embedding(x, past_calendar, self.places)
        maps = self.backbone(tokens.reshape(-1, 1, *self.map_size))[-1]
        source = maps.flatten(2).transpose(1, 2)  # [B·n, h·w, D']
        y = self.decoder_embedding(rest, future_calendar, self.places)
        for layer in self.decoder:
            y, more = layer(y, source)
            trend = trend + more
        y = self.norm(y)
        y = self.projection(y - y.mean(dim=1, keepdim=True)) + trend
        y = (y[:, self.label :] - self.offset) / (self.factor + 1e-10) * scale + mean
        return y.unflatten(0, (-1, self.nodes)).transpose(1, 2).flatten(2)
