"""A forecast of a file, in its units, with the band in which errors on known data lay: tools/forecast.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from unireplknet_mm.errors import UserError
from unireplknet_mm.modalities.time_series.base import SeriesModel
from unireplknet_mm.modalities.time_series.dataset import SeriesDataset
from unireplknet_mm.modalities.time_series.same_window import check_window
from unireplknet_mm.modalities.time_series.series import (
    Series,
    SeriesError,
    calendar_features,
    pandas,
)


@dataclass(frozen=True)
class Forecast:
    """What was, what is forecast and what came, in the units of the file.

    Attributes:
        past_dates: L dates; `past`: (L, D).
        dates: H dates; `values`: (H, D).
        truth: (H, D), NaN beyond the end of the file.
        columns: the D names.
        band: (H, D) each, the lower and the upper edge; None without one.
    """

    past_dates: pandas.DatetimeIndex
    past: np.ndarray
    dates: pandas.DatetimeIndex
    values: np.ndarray
    truth: np.ndarray
    columns: tuple[str, ...]
    band: tuple[np.ndarray, np.ndarray] | None = None

    def with_band(self, errors: Sequence[np.ndarray], deviation: Sequence[float]) -> Forecast:
        """The same with the band between two errors, (H, D) each, that are standardised by a deviation."""
        lower, upper = (self.values + edge * np.asarray(deviation) for edge in errors)
        return replace(self, band=(lower, upper))

    def table(self) -> pandas.DataFrame:
        """A row a date; of each variable the forecast and, with a band, `NAME lower` and `NAME upper`."""
        parts = {}
        for i, name in enumerate(self.columns):
            parts[name] = self.values[:, i]
            if self.band is not None:
                parts[f'{name} lower'], parts[f'{name} upper'] = (edge[:, i] for edge in self.band)
        return pandas.DataFrame(parts, index=self.dates.rename('date'))


def standardisation_of(meta: Mapping[str, Any], checkpoint: str) -> Mapping[str, Any]:
    """Columns, means and deviations that a model was trained with, of its checkpoint's meta.

    Raises:
        UserError: the checkpoint does not hold them.
    """
    stated = meta.get('dataset_meta') or {}
    if not {'columns', 'mean', 'deviation'} <= stated.keys():
        raise UserError(
            f'checkpoint {checkpoint} does not say how its series was standardised (meta.dataset_meta): '
            'take one that tools/train.py wrote.'
        )
    return stated


def forecast_series(
    model: SeriesModel,
    series: Series,
    stated: Mapping[str, Any],
    start: str | None = None,
) -> Forecast:
    """Forecast from a date on, or beyond the end of the series.

    Args:
        model: in evaluation mode.
        stated: of `standardisation_of`.
        start: the first date to forecast.

    Raises:
        SeriesError: `start` is no date of the series' calendar, there are too few rows before it, or the
            rows follow each other at another distance than those that the model was trained on.
        ArgumentError: of `check_window`.
    """
    check_window(model, stated)
    _check_frequency(series.frequency, stated.get('frequency'))
    row = _row_of(series, start)
    look_back, horizon = model.look_back, model.horizon
    if row < look_back:
        raise SeriesError(
            f'the model sees {look_back} rows, but there are {row} before {start or "the end of the file"}'
        )
    mean, deviation = np.asarray(stated['mean']), np.asarray(stated['deviation'])
    past = series.values[row - look_back : row]
    past_dates = series.dates[row - look_back : row]
    known = series.values[row : row + horizon]
    dates = series.dates[row : row + horizon].append(
        series.future_dates(horizon - len(known)) if len(known) < horizon else series.dates[:0]
    )
    calendar = calendar_features(past_dates.append(dates))
    parameter = next(model.parameters(), None)
    device = parameter.device if parameter is not None else 'cpu'
    with torch.no_grad():
        forecast = model(
            torch.tensor((past - mean) / deviation, dtype=torch.float32, device=device)[None],
            torch.tensor(calendar, device=device)[None],
        )[0]
    standard = forecast.float().cpu().numpy()
    truth = np.full(standard.shape, np.nan)
    truth[: len(known)] = known
    return Forecast(past_dates, past, dates, standard * deviation + mean, truth, series.columns)


def _check_frequency(frequency: str, learned: str | None) -> None:
    """A model sees rows, not dates: of rows of another length it would make some forecast all the same."""
    if learned is None:
        return
    lengths = [
        pandas.date_range(pandas.Timestamp(2021, 1, 1), periods=25, freq=freq)
        .to_series()
        .diff()
        .mean()
        for freq in (frequency, learned)
    ]
    # Months begin and end at other dates, but are as long.
    if abs(lengths[0] / lengths[1] - 1) > 0.05:
        raise SeriesError(
            f'the series has a row every {frequency}, but the model was trained on one every {learned}.\n'
            'Resample the file, or set frequency of the data set where it was not found as it is.'
        )


def _row_of(series: Series, start: str | None) -> int:
    if start is None:
        return len(series)
    if re.match(r'\s*\d{1,2}[./-]\d{1,2}[./-]\d', start):
        raise SeriesError(
            f'{start!r} may be day and month or month and day: write the year first, 2020-12-31'
        )
    try:
        date = pandas.Timestamp(start)
    except ValueError:
        date = pandas.NaT
    if date is pandas.NaT:
        raise SeriesError(f'{start!r} is no date')
    if date.tzinfo is not None:  # as the dates of a file become UTC
        date = date.tz_convert('UTC').tz_localize(None)
    if date == series.future_dates(1)[0]:
        return len(series)
    if date not in series.dates:
        raise SeriesError(
            f'{date} is no date of the series, which has one every {series.frequency} from '
            f'{series.dates[0]} to {series.dates[-1]}'
        )
    return int(series.dates.searchsorted(date))  # of a date that comes twice, the first


def forecast_errors(
    model: SeriesModel, dataset: SeriesDataset, batch_size: int = 128
) -> np.ndarray:
    """Truth less forecast of every window of a data set, standardised: (windows, H, D), float32."""
    device = next((parameter.device for parameter in model.parameters()), 'cpu')
    errors = []
    with torch.no_grad():
        for batch in DataLoader(dataset, batch_size, collate_fn=pseudo_collate):
            forecast = model(
                torch.stack(batch['inputs']).to(device), torch.stack(batch['calendar']).to(device)
            )
            future = torch.stack([sample.future for sample in batch['data_samples']])
            errors.append(future - forecast.float().cpu())
    return torch.cat(errors).numpy()


def error_band(errors: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """Between which errors a share `coverage` of those of a data set lies, each row ahead by itself.

    Windows overlap, so their errors are not independent; and the next series may be harder than this one, or
    easier: the band says how far off the model was, no more.

    Args:
        errors: (windows, H, D), of `forecast_errors`.

    Returns:
        The lower and the upper quantile, (H, D) each.
    """
    outside = (1 - coverage) / 2
    lower, upper = np.quantile(errors, (outside, 1 - outside), axis=0)
    return lower, upper


def share_within(errors: np.ndarray, band: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What share of the windows' errors lies within a band, its edges included: (H, D)."""
    lower, upper = band
    return ((errors >= lower) & (errors <= upper)).mean(axis=0)
