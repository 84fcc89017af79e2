"""Forecasting with an image backbone: embedding (Eq. 2), the untouched backbone, a linear layer.

The plain form of §3.3 for ordinary series; the paper's own model has Corrformer's decoder instead of the
linear layer. By default nothing passes the backbone by but the level and scale of each window: what the
backbone does not see cannot be forecast. A linear layer beside it (`skip`) is a choice, since that alone
forecasts many series well.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.func import functional_call

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series.base import SeriesModel
from unireplknet_mm.modalities.time_series.statistics import InstanceStatistics, moving_average

SKIPS = (None, 'linear', 'trend')
TREND_SIZE = 25  # rows of the moving average of skip='trend', as in DLinear


class ForecastHead(BaseModule):
    """A linear layer from all values of a node's last map to all of its forecast values.

    Args:
        map_shape: (C, h, w) of that map.
        horizon: rows to forecast.
        variables: D/n, of a node.
        dropout: rate, in front of the layer.
    """

    def __init__(
        self,
        map_shape: Sequence[int],
        horizon: int,
        variables: int,
        dropout: float = 0.0,
        init_cfg: dict | list[dict] | None = None,
    ):
        if init_cfg is None:
            init_cfg = dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0)
        super().__init__(init_cfg=init_cfg)
        self.map_shape = tuple(map_shape)
        self.horizon = horizon
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(math.prod(self.map_shape), horizon * variables)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of the backbone, the last of them (B·n, C, h, w) -> (B·n, horizon, D/n).

        Raises:
            ArgumentError: the map has another shape.
        """
        features = maps[-1]
        if tuple(features.shape[1:]) != self.map_shape:
            raise ArgumentError(
                f'the head was built for maps of {self.map_shape}, but gets {tuple(features.shape[1:])}'
            )
        forecast = self.linear(self.dropout(features.flatten(1)))
        return forecast.unflatten(1, (self.horizon, -1))


@MODELS.register_module()
class Forecaster(SeriesModel):
    """Window -> instance normalisation -> maps -> backbone -> linear layer -> forecast.

    Args:
        backbone: config of a backbone for inputs of one channel. Its last map is used.
        embedding: arguments of `SeriesMap` but for look_back and variables, `channels` at least. By default
            each variable is a node of its own.
        normalization: what is taken off each window and put back on its forecast: 'mean_std', 'mean', 'last'
            or None.
        skip: 'linear' adds a linear layer from the normalised window to the forecast, beside the backbone;
            'trend' one from its trend, a moving average of 25 rows. Both are shared by all variables. None,
            the default, adds none.
        dropout: rate in front of the last layer.
        **kwargs: of `SeriesModel`: look_back, horizon, variables, loss.

    Raises:
        ArgumentError: of `SeriesMap` and `SeriesModel`, or an unknown skip.
    """

    def __init__(
        self,
        backbone: dict,
        embedding: dict,
        normalization: str | None = 'mean_std',
        skip: str | None = None,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if skip not in SKIPS:
            raise ArgumentError(f'skip must be {", ".join(map(repr, SKIPS))}, not {skip!r}')
        self.statistics = InstanceStatistics(normalization)
        self.embedding = MODELS.build(
            dict(
                dict(type='SeriesMap', nodes=self.variables),
                **embedding,
                look_back=self.look_back,
                variables=self.variables,
            )
        )
        self.backbone = MODELS.build(backbone)
        self.head = ForecastHead(
            last_map_shape(self.backbone, self.embedding.map_size),
            self.horizon,
            self.variables // self.embedding.nodes,
            dropout,
        )
        self.skip_name = skip
        self.skip = nn.Linear(self.look_back, self.horizon) if skip else None

    def extract_feat(self, inputs: Tensor, calendar: Tensor | None = None) -> Sequence[Tensor]:
        """Normalised (B, look_back, D) -> the backbone's maps, each (B·n, C, h, w).

        Raises:
            ArgumentError: in training, the batch is a single map, too few for the backbone's BatchNorms.
        """
        past = None if calendar is None else calendar[:, : self.look_back]
        maps = self.embedding(inputs, past)
        try:
            return self.backbone(maps)
        except ValueError as error:
            if not self.training or len(maps) > 1:
                raise
            raise ArgumentError(
                f'a batch of one window of one node is too little to train on: {error}.\nSet another '
                'batch_size of train_dataloader, so that no window is left for a last batch of its own, or '
                'drop_last=True.'
            ) from error

    def forecast(self, inputs: Tensor, calendar: Tensor | None = None) -> Tensor:
        x, level, scale = self.statistics(inputs)
        by_node = self.head(self.extract_feat(x, calendar))
        # [B·n, horizon, D/n] -> [B, horizon, n, D/n] -> [B, horizon, D]
        by_node = by_node.unflatten(0, (-1, self.embedding.nodes)).transpose(1, 2)
        forecast = by_node.flatten(2)
        if self.skip is not None:
            beside = moving_average(x, TREND_SIZE) if self.skip_name == 'trend' else x
            forecast = forecast + self.skip(beside.transpose(1, 2)).transpose(1, 2)
        return self.statistics.restore(forecast, level, scale)


def last_map_shape(backbone: nn.Module, map_size: tuple[int, int]) -> tuple[int, int, int]:
    """(C, h, w) of the last map that a backbone makes of a map of one channel; no number is computed.

    Raises:
        ArgumentError: the backbone does not take such a map.
    """
    state = {
        name: value.to('meta')
        for name, value in (*backbone.named_parameters(), *backbone.named_buffers())
    }
    was_training = backbone.training
    backbone.eval()  # so that no statistics are asked for, nor random numbers
    try:
        with torch.no_grad():
            maps = functional_call(backbone, state, (torch.empty(1, 1, *map_size, device='meta'),))
    except RuntimeError as error:
        raise ArgumentError(
            f'{type(backbone).__name__} does not take a map of 1 × {map_size[0]} × {map_size[1]}: {error}\n'
            'Its input must have one channel: in_channels=1.'
        ) from error
    finally:
        backbone.train(was_training)
    return tuple(maps[-1].shape[1:])
