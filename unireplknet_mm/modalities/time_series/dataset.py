"""Windows of a series: what was, and what follows; for training, for choices and for the test."""

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS, TRANSFORMS
from mmengine.structures import BaseDataElement

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series.series import (
    SeriesError,
    calendar_features,
    read_series,
)

PARTS = ('train', 'val', 'test')


class WindowSample(BaseDataElement):
    """What belongs to a window besides its past, and what is forecast.

    `future` (horizon, D): what followed, as the data set scales it; `forecast` (horizon, D): a model's.
    Its metainfo: `sample_idx`, and `start`, the first date of the future.
    """


@DATASETS.register_module()
class SeriesDataset(BaseDataset):
    """All windows of one part of a series, a CSV file with a date column.

    The first rows train, the next serve choices, the last are the test. A window belongs to the part in
    which its future lies as a whole; its past may reach back into the part before. So there are (rows of the
    part) - horizon + 1 windows, less look_back in training. Each variable is standardised by mean and
    deviation of the training rows; a variable that is constant there is only shifted, with a warning.

    Samples: `past` (look_back, D), `future` (horizon, D), both float32 and standardised; `past_calendar`,
    `future_calendar` (as `calendar_features`); `start`, the date of the first row of the future.

    Args:
        ann_file: the CSV file, below `data_root`.
        look_back: rows that a model sees.
        horizon: rows that it forecasts.
        part: 'train', 'val' or 'test'.
        parts: the sizes of the three, as fractions of the rows or as numbers of rows; 0 leaves one out that
            is not used. Fractions are rounded down for training and test, what is left are the rows of val.
            Rows beyond are unused.
        columns, date_column, frequency, missing, date_format: as in `read_series`.
        **kwargs: of MMEngine's BaseDataset: `data_root`, `pipeline`, `indices`, ...

    Raises:
        ArgumentError: an unknown part, or sizes that are none.
        SeriesError: the file is no series, see `read_series`, or a part of it is shorter than a window.
    """

    def __init__(
        self,
        ann_file: str,
        look_back: int,
        horizon: int,
        part: str = 'train',
        parts: Sequence[float] = (0.7, 0.1, 0.2),
        columns: list[str] | None = None,
        date_column: str = 'date',
        frequency: str | None = None,
        missing: str = 'error',
        date_format: str | None = None,
        **kwargs: Any,
    ):
        if part not in PARTS:
            raise ArgumentError(f'part must be {", ".join(map(repr, PARTS))}, not {part!r}')
        for name, value in dict(look_back=look_back, horizon=horizon).items():
            if not isinstance(value, int) or value < 1:
                raise ArgumentError(f'{name} counts rows and must be at least 1, not {value!r}')
        self.look_back, self.horizon = look_back, horizon
        self.part, self.parts = part, parts
        self.reading = dict(
            columns=columns,
            date_column=date_column,
            frequency=frequency,
            missing=missing,
            date_format=date_format,
        )
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        series = read_series(self.ann_file, **self.reading)
        sizes = rows_of_parts(self.parts, len(series), self.ann_file)
        first, last = self._windows(sizes)
        mean, deviation = standardisation(series.values[: sizes[0]], series.columns, self.ann_file)
        self._metainfo |= dict(
            columns=list(series.columns),
            mean=mean.tolist(),
            deviation=deviation.tolist(),
            frequency=series.frequency,
            look_back=self.look_back,
        )
        self.dates = series.dates
        with np.errstate(over='ignore', invalid='ignore'):  # which the next lines say better
            self.values = ((series.values - mean) / deviation).astype(np.float32)
        is_lost = ~(np.isfinite(self.values).all(axis=0) & np.isfinite(deviation))
        if is_lost.any():
            name = series.columns[int(is_lost.argmax())]
            raise SeriesError(
                f'{self.ann_file}: {name} has values of up to {np.abs(series.values[:, is_lost]).max():.3g}, '
                'which single precision does not hold when they are standardised by the training rows.\n'
                'Mend them, or leave the column out with columns=[...] of the data set.'
            )
        self.calendar = calendar_features(series.dates)
        return [dict(row=row) for row in range(first, last)]

    def _windows(self, sizes: Sequence[int]) -> tuple[int, int]:
        """The first rows of the futures: from, and up to but not including."""
        number = PARTS.index(self.part)
        begin, end = sum(sizes[:number]), sum(sizes[: number + 1])
        first = max(begin, self.look_back)
        last = end - self.horizon + 1
        if last <= first:
            raise SeriesError(
                f'{self.ann_file}: the part {self.part!r} is rows {begin + 1} to {end}, too short for one '
                f'window of {self.look_back} rows (look_back) and {self.horizon} to forecast (horizon).\n'
                'Set smaller ones, or other parts of the data set.'
            )
        return first, last

    def get_data_info(self, idx: int) -> dict[str, Any]:
        info = super().get_data_info(idx)
        row = info['row']
        past, future = slice(row - self.look_back, row), slice(row, row + self.horizon)
        return dict(
            info,
            past=self.values[past],
            future=self.values[future],
            past_calendar=self.calendar[past],
            future_calendar=self.calendar[future],
            start=str(self.dates[row]),
        )


@TRANSFORMS.register_module()
class PackWindow:
    """The last step of a pipeline: tensors for the model.

    Gives `inputs` (look_back, D), `calendar` (look_back + horizon, 5), that of past and future, which is
    known beforehand, and `data_samples`, a `WindowSample`.
    """

    def __call__(self, window: dict[str, Any]) -> dict[str, Any]:
        sample = WindowSample(
            metainfo={key: window[key] for key in ('sample_idx', 'start') if key in window}
        )
        if 'future' in window:
            sample.set_data(dict(future=torch.from_numpy(window['future'])))
        calendar = np.concatenate([window['past_calendar'], window['future_calendar']])
        return dict(
            inputs=torch.from_numpy(window['past']),
            calendar=torch.from_numpy(calendar),
            data_samples=sample,
        )


def rows_of_parts(parts: Sequence[float], rows: int, path: str | os.PathLike) -> list[int]:
    """The numbers of rows for training, choices and test.

    Raises:
        ArgumentError: `parts` are not three sizes, the first above 0, or fractions of more than the whole.
        SeriesError: the file has fewer rows.
    """
    are_whole = all(float(size).is_integer() for size in parts)
    # (1.0, 0, 0) is the whole file, (8640.0, 2880.0, 2880.0) are rows.
    are_counts = are_whole and (max(parts) > 1 or all(isinstance(size, int) for size in parts))
    is_mixed = max(parts) > 1 and not are_counts
    if len(parts) != 3 or parts[0] <= 0 or min(parts) < 0 or is_mixed:
        raise ArgumentError(
            'parts must be three fractions or three numbers of rows, the first above 0, none below, not '
            f'{tuple(parts)}'
        )
    if not are_counts:
        if sum(parts) > 1 + 1e-9:
            raise ArgumentError(f'parts {tuple(parts)} are fractions of more than the whole')
        # Rounded before, for 0.7 * 10 is below 7.
        train, test = (int(round(size * rows, 6)) for size in (parts[0], parts[2]))
        whole = int(round(sum(parts) * rows, 6))
        return [train, whole - train - test, test]
    if sum(parts) > rows:
        raise SeriesError(
            f'{path} has {rows} rows, the parts of the data set {" + ".join(map(str, parts))}: set '
            'smaller ones'
        )
    return [int(size) for size in parts]


def standardisation(
    values: np.ndarray, columns: Sequence[str], path: str | os.PathLike
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each variable, (D,) each; 1 in the place of the deviation of a constant one."""
    with np.errstate(over='ignore', invalid='ignore'):  # said where the values are standardised
        mean, deviation = values.mean(axis=0), values.std(axis=0)
    # Rounding gives a constant column a tiny deviation.
    is_constant = deviation <= 1e-10 * np.maximum(1, np.abs(mean))
    if is_constant.any():
        names = ', '.join(name for name, flag in zip(columns, is_constant, strict=True) if flag)
        print_log(
            f'{path}: constant in the training rows, so not scaled: {names}.',
            logger='current',
            level=logging.WARNING,
        )
    return mean, np.where(is_constant, 1.0, deviation)
