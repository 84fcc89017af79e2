"""What every forecasting model shares: batches, losses, predictions."""

from abc import abstractmethod
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from torch import Tensor
from torch.nn import functional as F

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series.dataset import WindowSample

LOSSES = dict(mse=F.mse_loss, mae=F.l1_loss, huber=F.huber_loss)


@MODELS.register_module()
class SeriesPreprocessor(BaseDataPreprocessor):
    """Stacks windows to batches, on the model's device: (B, look_back, D) and their calendars."""

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        data = self.cast_data(data)
        stacked = {
            name: torch.stack(value) if isinstance(value, list | tuple) else value
            for name, value in data.items()
            if name in ('inputs', 'calendar')
        }
        return {**data, **stacked}


class SeriesModel(BaseModel):
    """A model that forecasts `horizon` rows from `look_back` rows of `variables` numbers.

    A subclass computes `forecast(inputs, calendar)`. Values are standardised ones, in and out.

    Args:
        loss: of all forecast values alike: 'mse', 'mae' or 'huber' (with delta 1).

    Raises:
        ArgumentError: an unknown loss, or a size below 1.
    """

    def __init__(
        self,
        look_back: int,
        horizon: int,
        variables: int,
        loss: str = 'mse',
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(data_preprocessor or dict(type='SeriesPreprocessor'), init_cfg)
        sizes = dict(look_back=look_back, horizon=horizon, variables=variables)
        for name, value in sizes.items():
            if not isinstance(value, int) or value < 1:
                raise ArgumentError(
                    f'{name} of {type(self).__name__} must be at least 1, not {value!r}'
                )
        if loss not in LOSSES:
            raise ArgumentError(f'loss must be {", ".join(map(repr, LOSSES))}, not {loss!r}')
        self.look_back, self.horizon, self.variables = look_back, horizon, variables
        self.loss_name = loss

    @property
    def uses_calendar(self) -> bool:
        """Whether the forecast depends on the calendar: a part of the model has weights for it."""
        return any(getattr(part, 'calendar', None) is not None for part in self.modules())

    @abstractmethod
    def forecast(self, inputs: Tensor, calendar: Tensor | None = None) -> Tensor:
        """(B, look_back, D), (B, look_back + horizon, 5) -> (B, horizon, D)."""

    def forward(
        self,
        inputs: Tensor,
        calendar: Tensor | None = None,
        data_samples: list[WindowSample] | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[WindowSample]:
        """The forecast (B, horizon, D) as a tensor; its loss; or the samples with their `forecast`.

        Raises:
            ArgumentError: the windows have another size than the model was built for.
        """
        self._check(inputs, data_samples)
        forecast = self.forecast(inputs, calendar)
        if mode == 'tensor':
            return forecast
        if mode == 'predict':
            for sample, own in zip(data_samples, forecast, strict=True):
                sample.set_data(dict(forecast=own))
            return data_samples
        future = torch.stack([sample.future for sample in data_samples])
        return dict(loss=LOSSES[self.loss_name](forecast.float(), future))

    def _check(self, inputs: Tensor, data_samples: list[WindowSample] | None) -> None:
        expected = (self.look_back, self.variables)
        if tuple(inputs.shape[1:]) != expected:
            raise ArgumentError(
                f'{type(self).__name__} takes windows of look_back × variables = {expected[0]} × '
                f'{expected[1]}, but gets {" × ".join(map(str, inputs.shape[1:]))}.\n'
                'Set look_back of the model and of the data sets alike, and variables to the number of their '
                'columns.'
            )
        if data_samples and 'future' in data_samples[0]:
            steps = len(data_samples[0].future)
            if steps != self.horizon:
                raise ArgumentError(
                    f'{type(self).__name__} forecasts {self.horizon} rows, but the windows have {steps}.\n'
                    'Set horizon of the model and of the data sets alike.'
                )
