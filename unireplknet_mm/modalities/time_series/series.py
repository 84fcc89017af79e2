"""Reading a series of numbers with dates from a CSV file, and what is checked of it.

A model sees rows, not dates: rows that are missing, doubled or in another order would be learned as if the
series were like that. So whatever is not one row a step is an error that says where, or is mended as
`missing` says.
"""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from unireplknet_mm.errors import ArgumentError, MissingFileError, MissingPackageError, UserError

try:
    import pandas
except (
    ModuleNotFoundError
):  # said where a file is to be read: MMEngine hides errors of custom_imports
    pandas = None

MISSING = ('error', 'interpolate', 'ignore')
CALENDAR = ('minute of hour', 'hour of day', 'day of week', 'day of month', 'day of year')


class SeriesError(UserError):
    """A file that is no series, or one with gaps, doubled rows or values that are no numbers."""


@dataclass(frozen=True)
class Series:
    """Rows of numbers, each with its date.

    Attributes:
        dates: a `pandas.DatetimeIndex` of T dates, rising; of one that comes twice, both, if so read.
        values: (T, D), float64, finite.
        columns: names of the D variables.
        frequency: the step of the calendar as pandas names it, such as 'h' or '15min'.
    """

    dates: pandas.DatetimeIndex
    values: np.ndarray
    columns: tuple[str, ...]
    frequency: str

    def __len__(self) -> int:
        return len(self.values)

    def future_dates(self, steps: int) -> pandas.DatetimeIndex:
        """The dates of the `steps` rows that would follow."""
        last = self.dates[-1]
        # The last date is among them only where it lies on the calendar, which missing='ignore' leaves open.
        dates = pandas.date_range(last, periods=steps + 1, freq=self.frequency)
        return dates[dates > last][:steps]


def read_series(
    path: str | os.PathLike,
    columns: list[str] | None = None,
    date_column: str = 'date',
    frequency: str | None = None,
    missing: str = 'error',
    date_format: str | None = None,
) -> Series:
    """Read a CSV file with a date column.

    Args:
        columns: the variables, in this order; by default all columns but the dates and, with a notice, a
            nameless first one, the row numbers that pandas writes.
        frequency: the step of the calendar as pandas names it: 'h', '15min', 'D', '7D', 'MS'. By default the
            commonest distance of two dates, or the rule that pandas infers.
        missing: what to do where the calendar has gaps or values are missing. 'error' raises; 'interpolate'
            fills both linearly, and says how many; 'ignore' takes the rows as if they followed each other,
            as benchmarks do, also two of one date, and refuses missing values all the same.
        date_format: how the dates are written, for `strptime`, such as '%d/%m/%Y'. By default pandas finds
            out, and what could be day and month as well as month and day in every row is an error. Dates
            with a time zone become UTC.

    Raises:
        MissingFileError: there is no such file.
        SeriesError: it cannot be read; columns are missing or hold no numbers; dates cannot be read, can be
            read in two ways, fall, come twice or do not lie on the calendar; with `missing='error'`, there
            are gaps.
        ArgumentError: `missing` or `frequency` is unknown, `columns` name one twice or the dates.
        MissingPackageError: pandas is not installed.
    """
    if pandas is None:
        raise MissingPackageError(
            'time series are read with pandas, which is not installed: '
            'pip install "unireplknet-mm[time_series]"'
        )
    if missing not in MISSING:
        raise ArgumentError(f'missing must be {", ".join(map(repr, MISSING))}, not {missing!r}')
    for name in columns or ():
        if name == date_column or columns.count(name) > 1:
            problem = 'is the column of dates' if name == date_column else 'comes twice'
            raise ArgumentError(f'columns={columns} are the variables, but {name!r} {problem}')
    frame = _read_table(Path(path), date_column, columns)
    dates = _read_dates(frame.pop(date_column), path, date_column, date_format)
    frame = frame.set_axis(dates)
    _check_order(dates, path, missing)
    offset = _offset(frequency) if frequency else _infer_offset(dates, path)
    frame = _match_calendar(frame, offset, bool(frequency), path, missing)
    values = frame.to_numpy(np.float64)
    _check_finite(values, frame, path)
    return Series(frame.index, values, tuple(frame.columns), offset.freqstr)


def calendar_features(dates: pandas.DatetimeIndex) -> np.ndarray:
    """Where dates stand in the hour, day, week, month and year: (T, 5) from -0.5 to 0.5, float32.

    The same five for every frequency, of which those that the frequency does not show are constant. After
    the calendar features of Informer (arXiv 2012.07436).
    """
    columns = (
        dates.minute / 59,
        dates.hour / 23,
        dates.day_of_week / 6,
        (dates.day - 1) / 30,
        (dates.day_of_year - 1) / 365,
    )
    return np.stack([np.asarray(column, np.float32) for column in columns], axis=1) - 0.5


def _read_table(path: Path, date_column: str, columns: list[str] | None) -> pandas.DataFrame:
    if not path.is_file():
        raise MissingFileError(f'{path.absolute()} does not exist: a CSV file is needed')
    try:
        frame = pandas.read_csv(path, dtype={date_column: str})
    except (ValueError, UnicodeDecodeError) as error:  # pandas' errors of parsing are ValueErrors
        summary = str(error).strip().partition('\n')[0]
        raise SeriesError(f'{path} is no table of comma-separated values: {summary}') from error
    wanted = [date_column, *(columns or [])]
    separator = next((mark for mark in ';\t|' if mark in str(frame.columns[0])), None)
    if separator and frame.shape[1] == 1:
        raise SeriesError(
            f'{path} has one column, {frame.columns[0]!r}: it is separated by {separator!r}.\n'
            'Save it with commas between the columns and points in the numbers.'
        )
    if not isinstance(frame.index, pandas.RangeIndex):  # of the first values, which have no name
        raise SeriesError(f'{path}: the rows have more values than the first line has names')
    absent = [name for name in wanted if name not in frame.columns]
    if absent:
        raise SeriesError(
            f'{path} has no column {", ".join(absent)}; it has {_listed(frame.columns)}.\n'
            'Set date_column and columns of the data set.'
        )
    frame = frame[wanted] if columns else _without_row_numbers(frame, date_column, path)
    if frame.shape[1] < 2 or len(frame) < 2:
        raise SeriesError(
            f'{path} has {len(frame)} rows of {frame.shape[1] - 1} variables: a series needs two rows and '
            'a variable at least'
        )
    texts = [
        name
        for name in frame.columns
        if name != date_column and not pandas.api.types.is_numeric_dtype(frame[name])
    ]
    if texts:
        values = frame[texts[0]]
        is_text = pandas.to_numeric(values, errors='coerce').isna() & values.notna()
        row = int(is_text.argmax())
        raise SeriesError(
            f'{path}: the columns {_listed(texts)} hold something else than numbers, such as '
            f'{values.iloc[row]!r} in row {row + 1} of {texts[0]}.\n'
            'Mend the file, or name the columns to use with columns=[...] of the data set.'
        )
    return frame


def _without_row_numbers(frame: pandas.DataFrame, date_column: str, path: Path) -> pandas.DataFrame:
    first = frame.columns[0]
    if first != 'Unnamed: 0' or first == date_column:  # pandas' word for a column without a name
        return frame
    print_log(
        f'{path}: the first column has no name and is left out, as row numbers; columns=[{first!r}, ...] of '
        'the data set would take it.',
        logger='current',
        level=logging.WARNING,
    )
    return frame.drop(columns=first)


def _read_dates(
    texts: pandas.Series, path: str, name: str, date_format: str | None
) -> pandas.DatetimeIndex:
    is_none = texts.isna()
    if date_format is None:
        # pandas would take a bare row number for a day of this month, or for nanoseconds, and give a time
        # of day the date of today.
        is_none |= texts.str.fullmatch(r'\d{1,7}|\s*\d{1,2}:[\d:.]+\s*([aApP][mM])?\s*', na=False)
    if is_none.any():
        row = int(is_none.argmax())
        raise SeriesError(
            f'{path}, row {row + 1}: {texts.iloc[row]!r} in column {name} is no date.\n'
            "Mend it, or set date_format of the data set, such as '%Y' for years."
        )
    if date_format is None:
        _check_day_and_month(texts, path, name)
    has_zone = texts.str.contains(r':\d\d(?:\.\d+)?\s*(?:Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)\s*$')
    if has_zone.any() and not has_zone.all():
        row = int((has_zone != has_zone.iloc[0]).argmax())
        raise SeriesError(
            f'{path}, row {row + 1}: {texts.iloc[row]!r} in column {name} beside {texts.iloc[0]!r}: the time '
            'zone of one is not known'
        )
    try:
        with (
            warnings.catch_warnings()
        ):  # that it reads each date by itself, which the error says better
            warnings.simplefilter('ignore', UserWarning)
            # As UTC, for where clocks change the offsets differ within a file; dates without a zone stay.
            dates = pandas.DatetimeIndex(pandas.to_datetime(texts, utc=True, format=date_format))
    except (ValueError, TypeError) as error:
        summary = (
            str(error).replace('You might want to try:', '').strip().partition('\n')[0].rstrip('. ')
        )
        raise SeriesError(
            f'{path}: column {name} holds no dates: {summary}.\n'
            "Mend it, or set date_format of the data set, such as '%d/%m/%Y %H:%M'."
        ) from error
    return dates.tz_localize(None)


def _check_day_and_month(texts: pandas.Series, path: str, name: str) -> None:
    """An error where no row tells the two apart: 1/2/2020 and no 13/2/2020."""
    first_two = texts.str.extract(r'^\s*(\d{1,2})[./-](\d{1,2})[./-]\d').astype(float)
    differs = first_two[0] != first_two[1]
    if first_two.notna().all(axis=None) and first_two.le(12).all(axis=None) and differs.any():
        raise SeriesError(
            f'{path}: {texts.iloc[int(differs.argmax())]!r} may, like every row of column {name}, be day and '
            "month or month and day.\nSet date_format of the data set, such as '%d/%m/%Y'."
        )


def _check_order(dates: pandas.DatetimeIndex, path: str, missing: str) -> None:
    steps = np.diff(dates.asi8)
    is_doubled = steps == 0
    if (steps < 0).any():
        row = int((steps < 0).argmax()) + 1
        raise SeriesError(
            f'{path}, row {row + 1}: {dates[row]} comes after {dates[row - 1]}.\nSort the file by date.'
        )
    if not is_doubled.any():
        return
    row = int(is_doubled.argmax()) + 1
    if missing != 'ignore':
        raise SeriesError(
            f'{path}, row {row + 1}: {dates[row]} comes twice.\n'
            "Remove one of the two rows, or take both with missing='ignore' of the data set."
        )
    print_log(
        f'{path}: {int(is_doubled.sum())} rows have the date of the row before, the first of them row '
        f'{row + 1}, {dates[row]}. They are taken as they are.',
        logger='current',
        level=logging.WARNING,
    )


def _offset(frequency: str) -> pandas.offsets.BaseOffset:
    try:
        # A bare 'W' would stand for Sundays; here it is a step of seven days from the first date.
        offset = pandas.tseries.frequencies.to_offset('7D' if frequency == 'W' else frequency)
    except ValueError as error:
        raise ArgumentError(
            f"frequency={frequency!r} is none that pandas knows: use 'h', '15min', 'D', '7D', 'MS', ..."
        ) from error
    start = pandas.Timestamp(2000, 1, 1)
    if start + offset <= start:
        raise ArgumentError(f'frequency={frequency!r} is no step forward')
    return offset


def _infer_offset(dates: pandas.DatetimeIndex, path: str) -> pandas.offsets.BaseOffset:
    steps, counts = np.unique(np.diff(dates), return_counts=True)
    commonest = pandas.Timedelta(steps[counts.argmax()])
    # Months and years differ in length: there a rule of pandas, if any, is the calendar.
    rule = pandas.infer_freq(dates) if len(steps) > 1 and len(dates) > 2 else None
    if rule is None and counts.max() * 2 < len(dates):
        raise SeriesError(
            f'{path}: the dates follow no calendar; the commonest step, {commonest}, is that of '
            f'{counts.max()} of {len(dates) - 1} rows.\nSet frequency of the data set.'
        )
    if rule:
        return pandas.tseries.frequencies.to_offset(rule)
    days, rest = divmod(commonest, pandas.Timedelta(days=1))
    # '7D' rather than pandas 3's '168h'.
    return pandas.tseries.frequencies.to_offset(commonest) if rest else pandas.offsets.Day(days)


def _match_calendar(
    frame: pandas.DataFrame,
    offset: pandas.offsets.BaseOffset,
    is_given: bool,
    path: str,
    missing: str,
) -> pandas.DataFrame:
    """The rows of the calendar, one a step."""
    dates = frame.index
    calendar = pandas.date_range(dates[0], dates[-1], freq=offset)
    is_on = dates.isin(calendar)
    is_there = calendar.isin(dates)
    number = int((~is_there).sum())
    if is_on.all() and number == 0:
        return _interpolate(frame, 0, path) if missing == 'interpolate' else frame
    stated = f'the frequency {offset.freqstr}{"" if is_given else ", that of most rows"}'
    if not is_on.all():
        row = int((~is_on).argmax())
        problem = (
            f'{path}, row {row + 1}: {dates[row]} does not lie on the calendar of {stated}, from '
            f'{dates[0]}'
        )
        way_out = (
            "Set frequency of the data set, or take the rows as they are with missing='ignore'."
        )
    else:
        first = calendar[~is_there][0]
        problem = f'{path}: {number} rows are missing for {stated}, the first at {first}'
        way_out = "Fill them, or set missing='interpolate' or missing='ignore' of the data set."
    if missing == 'ignore':
        print_log(
            f'{problem}. The rows are taken as they are.', logger='current', level=logging.WARNING
        )
        return frame
    if missing == 'error' or not is_on.all():
        raise SeriesError(f'{problem}.\n{way_out}')
    return _interpolate(frame.reindex(calendar), number, path)


def _interpolate(frame: pandas.DataFrame, number: int, path: str) -> pandas.DataFrame:
    frame = frame.replace([np.inf, -np.inf], np.nan)
    blanks = int(frame.isna().to_numpy().sum()) - number * frame.shape[1]
    if number or blanks:
        print_log(
            f'{path}: {number} missing rows and {blanks} missing values are interpolated.',
            logger='current',
            level=logging.WARNING,
        )
    return frame.interpolate(limit_direction='both')


def _check_finite(values: np.ndarray, frame: pandas.DataFrame, path: str) -> None:
    is_bad = ~np.isfinite(values)
    if is_bad.any():
        row, column = map(int, np.argwhere(is_bad)[0])
        raise SeriesError(
            f'{path}, {frame.index[row]}: {frame.columns[column]} is {values[row, column]}, the first of '
            f'{int(is_bad.sum())} values that are no finite numbers.\nFill them, or set '
            "missing='interpolate' of the data set."
        )


def _listed(names: list[str]) -> str:
    names = [str(name) for name in names]
    return ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '')
