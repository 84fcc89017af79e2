"""Hourly values of weather stations in the files of Corrformer's global data (§4.2, Table 12).

Arrays, as numpy saves them: of each part the values (T, D) or (T, D, 1) of D stations and the T dates, and
of all parts the places of the stations (D, 3), ordered by the nodes of a tree. The published temperatures and
wind speeds are tenths of degrees Celsius and metres a second.
"""

import logging
import os
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner

from unireplknet_mm.errors import ArgumentError, MissingFileError, MissingPackageError
from unireplknet_mm.modalities.pickles import UNREADABLE, ArraysUnpickler
from unireplknet_mm.modalities.time_series.series import SeriesError, calendar_features, pandas
from unireplknet_mm.modalities.time_series.weather import PLACE
from unireplknet_mm.models.whole_model import unwrap_model

ROWS_AT_ONCE = 1024  # of a file that may be larger than the memory
DATES = {('datetime', 'datetime'): datetime}  # what an array of dates may be pickled of


@DATASETS.register_module()
class StationDataset(BaseDataset):
    """All windows of one part, which is a file of its own: T - look_back - horizon + 1.

    The values are not standardised: the model takes off level and scale of each window. Samples: as those of
    `SeriesDataset`. The metainfo holds `places` (D, 3).

    Args:
        ann_file: the values, below `data_root`.
        dates_file, places_file: likewise.
        look_back: rows that a model sees.
        horizon: rows that it forecasts.
        unit: what a 1 of the file stands for; errors then are in the unit. With 0.1, MSE and MAE are those of
            the raw values divided by 100 and 10, as Table 12 has them.
        missing: what to do where dates are missing: 'error', or 'ignore' to take the rows as if they
            followed each other, as the published code does, with a warning.
        **kwargs: of MMEngine's BaseDataset: `data_root`, `pipeline`, `indices`, ...

    Raises:
        ArgumentError: `missing` is unknown, or a size is below 1.
        MissingFileError: there is no such file.
        SeriesError: a file is no such array, they do not fit each other, values are missing, dates fall or
            come twice, there are gaps, or fewer rows than a window has.
        MissingPackageError: pandas is not installed.
    """

    def __init__(
        self,
        ann_file: str,
        dates_file: str,
        places_file: str,
        look_back: int,
        horizon: int,
        unit: float = 1.0,
        missing: str = 'error',
        **kwargs: Any,
    ):
        for name, value in dict(look_back=look_back, horizon=horizon).items():
            if not isinstance(value, int) or value < 1:
                raise ArgumentError(f'{name} counts rows and must be at least 1, not {value!r}')
        if missing not in ('error', 'ignore'):
            raise ArgumentError(f"missing must be 'error' or 'ignore', not {missing!r}")
        self.dates_file, self.places_file = dates_file, places_file
        self.look_back, self.horizon = look_back, horizon
        self.unit, self.missing = unit, missing
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict]:
        if pandas is None:
            raise MissingPackageError(
                'dates are read with pandas, which is not installed: '
                'pip install "unireplknet-mm[time_series]"'
            )
        root = self.data_root or ''
        dates_path, places_path = (
            os.path.join(root, name) for name in (self.dates_file, self.places_file)
        )
        self.values = read_values(self.ann_file)
        self.dates = read_dates(dates_path, self.missing)
        places = read_places(places_path)
        rows, stations = self.values.shape
        for path, number, expected, what in (
            (dates_path, len(self.dates), rows, 'dates, but there are {} rows'),
            (places_path, len(places), stations, 'stations, but there are {} columns'),
        ):
            if number != expected:
                raise SeriesError(f'{path} has {number} {what.format(expected)} in {self.ann_file}')
        windows = rows - self.look_back - self.horizon + 1
        if windows < 1:
            raise SeriesError(
                f'{self.ann_file} has {rows} rows, too few for one window of {self.look_back} (look_back) '
                f'and {self.horizon} to forecast (horizon)'
            )
        self.calendar = calendar_features(self.dates)
        self._metainfo |= dict(
            columns=[f'station {i + 1}' for i in range(stations)],
            mean=[0.0] * stations,
            deviation=[1.0] * stations,
            places=places.tolist(),
            look_back=self.look_back,
        )
        return [dict(row=row) for row in range(self.look_back, self.look_back + windows)]

    def get_data_info(self, idx: int) -> dict[str, Any]:
        info = super().get_data_info(idx)
        row = info['row']
        past, future = slice(row - self.look_back, row), slice(row, row + self.horizon)
        return dict(
            info,
            past=np.asarray(self.values[past] * self.unit, np.float32),
            future=np.asarray(self.values[future] * self.unit, np.float32),
            past_calendar=self.calendar[past],
            future_calendar=self.calendar[future],
            start=str(self.dates[row]),
        )


@HOOKS.register_module()
class StationPlacesHook(Hook):
    """Tells a `WeatherForecaster` where the stations of its training data are.

    Raises:
        ArgumentError: the data set does not say it, or has more or fewer stations than the model.
    """

    def before_train(self, runner: Runner) -> None:
        model = unwrap_model(runner.model)
        places = runner.train_dataloader.dataset.metainfo.get('places')
        if places is None:
            raise ArgumentError(
                'the data set says no places: StationPlacesHook needs a StationDataset'
            )
        model.set_places(np.array(places))


def read_values(path: str | os.PathLike) -> np.ndarray:
    """(T, D) numbers, left on the disk where their type allows it.

    Raises:
        MissingFileError: there is no such file.
        SeriesError: it is no array of that shape, or some values are not finite.
    """
    values = load_array(path)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim != 2 or values.dtype.kind not in 'iuf':
        raise SeriesError(
            f'{path} is an array of {" × ".join(map(str, values.shape))} {values.dtype}: rows × stations, or '
            'rows × stations × 1, of numbers are needed'
        )
    for begin in range(0, len(values), ROWS_AT_ONCE):
        is_bad = ~np.isfinite(values[begin : begin + ROWS_AT_ONCE])
        if is_bad.any():
            row, station = map(int, np.argwhere(is_bad)[0])
            raise SeriesError(
                f'{path}, row {begin + row + 1}: station {station + 1} is '
                f'{values[begin + row, station]}, which is no finite number. Fill it or leave the station '
                'out.'
            )
    return values


def read_dates(path: str | os.PathLike, missing: str = 'error') -> 'pandas.DatetimeIndex':
    """T dates, rising by the commonest step; with `missing='ignore'`, by any.

    Raises:
        MissingFileError: there is no such file.
        SeriesError: it holds no dates, they fall or come twice, or there are gaps.
    """
    texts = load_array(path)
    try:
        if texts.ndim != 1 or texts.dtype.kind in 'iufb':
            raise ValueError(f'{" × ".join(map(str, texts.shape))} {texts.dtype}')
        with warnings.catch_warnings():  # that it reads each date by itself
            warnings.simplefilter('ignore', UserWarning)
            dates = pandas.DatetimeIndex(pandas.to_datetime(texts))
    except (ValueError, TypeError) as error:
        raise SeriesError(f'{path} holds no dates: {str(error).partition(chr(10))[0]}') from error
    steps = np.diff(dates.asi8)
    if dates.hasnans or (steps <= 0).any():
        row = int((dates.isna() | np.append(False, steps <= 0)).argmax())
        raise SeriesError(
            f'{path}, row {row + 1}: {dates[row]} comes after {dates[max(0, row - 1)]}'
        )
    lengths, counts = np.unique(steps, return_counts=True)
    if len(lengths) > 1:
        row = int((steps != lengths[counts.argmax()]).argmax()) + 1
        problem = (
            f'{path}, row {row + 1}: {dates[row]} comes after {dates[row - 1]}, another step than that of '
            'most rows'
        )
        if missing == 'error':
            raise SeriesError(
                f"{problem}.\nFill what is missing, or set missing='ignore' of the data set."
            )
        print_log(
            f'{problem}. The rows are taken as they are.', logger='current', level=logging.WARNING
        )
    return dates


def read_places(path: str | os.PathLike) -> np.ndarray:
    """(D, 3) of the stations, taken for latitude and longitude in degrees and height.

    A model uses them as three numbers; which is which matters to pictures alone.

    Raises:
        MissingFileError: there is no such file.
        SeriesError: it is no such array.
    """
    places = load_array(path)
    try:
        places = places.astype(np.float64)
    except (ValueError, TypeError):
        places = places.astype(str)
    if places.dtype.kind != 'f' or places.shape[1:] != (PLACE,) or not np.isfinite(places).all():
        raise SeriesError(
            f'{path} is an array of {" × ".join(map(str, places.shape))}: {PLACE} finite numbers a station '
            'are needed, its latitude, longitude and height'
        )
    return places


def load_array(path: str | os.PathLike) -> np.ndarray:
    """The array of an `.npy` file; plain ones stay on the disk, objects are read without running code.

    Raises:
        MissingFileError: there is no such file.
        SeriesError: it is no such file, or one of objects other than dates, texts and numbers.
    """
    if not Path(path).is_file():
        raise MissingFileError(f'{os.path.abspath(path)} does not exist: an .npy file is needed')
    try:
        with open(path, 'rb') as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
            if dtype.hasobject:
                return np.asarray(ArraysUnpickler(file, DATES).load()).reshape(shape)
        return np.load(path, mmap_mode='r', allow_pickle=False)
    except (OSError, *UNREADABLE) as error:
        raise SeriesError(f'{path} cannot be read as an .npy file: {error}') from error
