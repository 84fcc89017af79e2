"""CSV files with dates: what is read of good ones, and what is said of bad ones."""

import numpy as np
import pandas
import pytest

from unireplknet_mm.errors import ArgumentError, MissingFileError, MissingPackageError
from unireplknet_mm.modalities.time_series import (
    SeriesError,
    calendar_features,
    read_series,
    series,
)


def hourly(rows=48, start='2021-03-01'):
    dates = pandas.date_range(start, periods=rows, freq='h')
    return pandas.DataFrame(
        dict(date=dates.astype(str), a=np.arange(rows, dtype=float), b=np.sin(np.arange(rows)))
    )


@pytest.fixture
def write(tmp_path):
    def write(frame, **options):
        path = tmp_path / 'series.csv'
        frame.to_csv(path, index=False, **options)
        return path

    return write


def test_a_good_file(write):
    series = read_series(write(hourly()))
    assert series.columns == ('a', 'b') and len(series) == 48
    assert series.frequency == 'h'
    assert series.values.dtype == np.float64
    assert np.array_equal(series.values[:, 0], np.arange(48))
    assert str(series.dates[0]) == '2021-03-01 00:00:00'
    assert [str(date) for date in series.future_dates(2)] == [
        '2021-03-03 00:00:00',
        '2021-03-03 01:00:00',
    ]


def test_columns_are_taken_in_the_order_asked_for(write):
    path = write(hourly().rename(columns=dict(date='time')).assign(note='x'))
    series = read_series(path, columns=['b', 'a'], date_column='time')
    assert series.columns == ('b', 'a')
    assert series.values[3].tolist() == [pytest.approx(np.sin(3)), 3]


@pytest.mark.parametrize(
    ('frequency', 'stated'),
    [('15min', '15min'), ('D', 'D'), ('7D', '7D'), ('MS', 'MS'), ('ME', 'ME'), ('W-SUN', '7D')],
)
def test_the_frequency_is_found(write, frequency, stated):
    dates = pandas.date_range('2021-01-03', periods=30, freq=frequency)
    path = write(pandas.DataFrame(dict(date=dates, a=range(30))))
    assert read_series(path).frequency == stated
    assert read_series(path, frequency=frequency).dates.equals(read_series(path).dates)
    next_date = pandas.date_range(dates[-1], periods=2, freq=frequency)[1]
    assert read_series(path).future_dates(1)[0] == next_date


def test_a_step_of_weeks_starts_at_the_first_date(write):
    """A bare 'W' is Sundays for pandas; 2021-03-03 is a Wednesday."""
    dates = pandas.date_range('2021-03-03', periods=10, freq='7D')
    assert (
        len(read_series(write(pandas.DataFrame(dict(date=dates, a=range(10)))), frequency='W'))
        == 10
    )


def test_dates_with_a_time_zone_become_utc(write):
    frame = hourly()
    frame['date'] = pandas.to_datetime(frame['date']).dt.tz_localize('Asia/Tokyo').astype(str)
    assert str(read_series(write(frame)).dates[0]) == '2021-02-28 15:00:00'


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(MissingFileError, match=r'nothing\.csv does not exist'):
        read_series(tmp_path / 'nothing.csv')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is no table of comma-separated values'),
        (b'\x89PNG\r\n\x1a\n\x00\xff', 'is no table of comma-separated values'),
        (b'date,a\n2021-01-01,1\n2021-01-02,1,2,3\n', 'is no table of comma-separated values'),
        (b'time,a\n2021-01-01,1\n2021-01-02,2\n', 'has no column date; it has time, a'),
        (
            b'date,a\n2021-01-01,1\n2021-01-02,\n2021-01-03,"1,5"\n',
            "the columns a hold something else than numbers, such as '1,5' in row 3 of a",
        ),
        (b'date,a\n7,2021-01-01,1\n7,2021-01-02,2\n', 'more values than the first line has names'),
        (
            b'date;a\n2021-01-01;1,5\n2021-01-02;2,5\n',
            "one column, 'date;a': it is separated by ';'",
        ),
        (b'date\ta\n2021-01-01\t1\n', r"it is separated by '\t'"),
        (
            b'date,a\n2021,1\n2022,2\n',
            "'2021' in column date is no date.\nMend it, or set date_format",
        ),
        (b'date,a\n2021-01-01,1\n', 'has 1 rows of 1 variables'),
        (b'date\n2021-01-01\n2021-01-02\n', 'has 2 rows of 0 variables'),
        (b'date,a\n0,1\n1,2\n', "row 1: '0' in column date is no date"),
        (b'date,a\n2021-01-01,1\n,2\n', 'row 2: nan in column date is no date'),
        (b'date,a\nspring,1\nsummer,2\n', 'column date holds no dates'),
        (b'date,a\n2021-01-01,1\n2021-01-01,2\n', 'row 2: 2021-01-01 00:00:00 comes twice'),
        (b'date,a\n2021-01-02,1\n2021-01-01,2\n', 'comes after 2021-01-02 00:00:00'),
    ],
)
def test_files_that_are_no_series(tmp_path, content, message):
    path = tmp_path / 'bad.csv'
    path.write_bytes(content)
    with pytest.raises(SeriesError) as error:
        read_series(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_columns_that_are_not_there(write):
    with pytest.raises(SeriesError, match='has no column c; it has date, a, b'):
        read_series(write(hourly()), columns=['c'])


def test_gaps(write, log):
    path = write(hourly().drop(index=[5, 6, 20]))
    with pytest.raises(SeriesError) as error:
        read_series(path)
    assert (
        '3 rows are missing for the frequency h, that of most rows, the first at 2021-03-01 05'
        in str(error.value)
    )
    filled = read_series(path, missing='interpolate')
    assert len(filled) == 48
    assert np.allclose(filled.values[:, 0], np.arange(48))
    assert any('3 missing rows and 0 missing values are interpolated' in line for line in log)
    log.clear()
    assert len(read_series(path, missing='ignore')) == 45
    assert any('3 rows are missing' in line and 'taken as they are' in line for line in log)


def test_a_date_that_comes_twice(write, log):
    """As 2020-05-12 06:00 does in the file of Weather that the field uses, which has gaps as well."""
    frame = hourly().drop(index=[30, 31])
    path = write(pandas.concat([frame[:21], frame[20:]]))
    for missing in ('error', 'interpolate'):
        with pytest.raises(SeriesError, match='row 22: 2021-03-01 20:00:00 comes twice') as error:
            read_series(path, missing=missing)
        assert "missing='ignore'" in str(error.value)
    series = read_series(path, missing='ignore')
    assert len(series) == 47 and series.frequency == 'h'
    assert series.values[19:23, 0].tolist() == [19, 20, 20, 21]
    assert any('1 rows have the date of the row before, the first of them row 22' in x for x in log)
    assert any('2 rows are missing for the frequency h' in line for line in log)
    with pytest.raises(SeriesError, match=r'comes after 2021-03-01 20:00:00.\nSort the file'):
        read_series(write(pandas.concat([frame[:21], frame[19:]])), missing='ignore')


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_values_that_are_no_numbers(write, log, value):
    frame = hourly()
    frame.loc[7, 'b'] = value
    path = write(frame)
    for missing in ('error', 'ignore'):
        with pytest.raises(SeriesError) as error:
            read_series(path, missing=missing)
        assert f'2021-03-01 07:00:00: b is {value}, the first of 1 values' in str(error.value)
    filled = read_series(path, missing='interpolate')
    assert filled.values[7, 1] == pytest.approx((np.sin(6) + np.sin(8)) / 2)
    assert any('0 missing rows and 1 missing values are interpolated' in line for line in log)


def test_a_column_of_nothing_cannot_be_interpolated(write):
    with pytest.raises(SeriesError, match='b is nan'):
        read_series(write(hourly().assign(b=np.nan)), missing='interpolate')


@pytest.mark.parametrize('missing', ['error', 'interpolate'])
def test_a_calendar_that_does_not_match_the_frequency(write, missing):
    with pytest.raises(SeriesError) as error:
        read_series(write(hourly()), frequency='2h', missing=missing)
    assert 'row 2: 2021-03-01 01:00:00 does not lie on the calendar of the frequency 2h' in str(
        error.value
    )
    with pytest.raises(SeriesError, match='24 rows are missing for the frequency 30min') as error:
        read_series(write(hourly(25)), frequency='30min')
    assert len(read_series(write(hourly()), frequency='2h', missing='ignore')) == 48


def test_dates_without_a_calendar(write):
    dates = pandas.to_datetime('2021-01-01') + pandas.to_timedelta(
        np.cumsum(np.arange(1, 31)), unit='min'
    )
    with pytest.raises(SeriesError, match='the dates follow no calendar'):
        read_series(write(pandas.DataFrame(dict(date=dates, a=range(30)))))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(frequency='fortnight'), 'fortnight'),
        (dict(frequency='0h'), "frequency='0h' is no step forward"),
        (dict(missing='drop'), "not 'drop'"),
        (dict(columns=['date', 'a']), "'date' is the column of dates"),
        (dict(columns=['a', 'a']), "'a' comes twice"),
    ],
)
def test_unknown_arguments(write, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        read_series(write(hourly()), **arguments)


def dated(dates):
    return pandas.DataFrame(dict(date=dates, a=range(len(dates))))


def test_time_zones_become_utc_though_clocks_change(write):
    dates = pandas.date_range('2020-03-28', periods=60, freq='h', tz='Europe/Berlin')
    found = read_series(write(dated([date.isoformat() for date in dates])))
    assert found.dates.equals(dates.tz_convert('UTC').tz_localize(None))
    assert found.frequency == 'h'
    with pytest.raises(SeriesError, match=r'row 3: .* the time zone of one is not known'):
        read_series(write(dated(['2020-01-01 00:00Z', '2020-01-01 01:00Z', '2020-01-01 02:00'])))


def test_times_of_day_are_no_dates(write):
    for texts in (['00:00', '01:00'], ['1:00 am', '2:00 am']):
        with pytest.raises(SeriesError, match=r'row 1: .* is no date'):
            read_series(write(dated(texts)))


@pytest.mark.parametrize('pattern', ['%d/%m/%Y', '%d.%m.%Y 00:00'])
def test_day_or_month(write, pattern):
    dates = pandas.date_range('2020-01-01', periods=12)
    path = write(dated(dates.strftime(pattern)))
    with pytest.raises(SeriesError, match=r"'02.01.2020.* month and day.\nSet date_format"):
        read_series(path)
    found = read_series(path, date_format=pattern)
    assert found.dates.equals(dates) and found.frequency == 'D'
    # The 13th of January tells.
    monthly = dated(pandas.date_range('2020-01-01', periods=13).strftime('%m/%d/%Y'))
    assert read_series(write(monthly)).frequency == 'D'


def test_another_date_format(write):
    with pytest.raises(SeriesError, match=r'holds no dates: .*\nMend it, or set date_format'):
        read_series(write(hourly()), date_format='%d/%m/%Y')


def test_row_numbers_are_left_out(tmp_path, log):
    path = tmp_path / 'series.csv'
    hourly().to_csv(path)
    assert read_series(path).columns == ('a', 'b')
    assert any('the first column has no name and is left out' in line for line in log)
    assert read_series(path, columns=['Unnamed: 0', 'a']).columns == ('Unnamed: 0', 'a')


def test_a_header_alone(write):
    with pytest.raises(SeriesError, match='has 0 rows of 2 variables'):
        read_series(write(hourly(0)))


def test_future_dates_behind_a_row_off_the_calendar(write):
    months = pandas.date_range('2020-01-01', periods=12, freq='MS') + pandas.Timedelta(days=14)
    found = read_series(write(dated(months)), frequency='MS', missing='ignore')
    assert [str(date.date()) for date in found.future_dates(2)] == ['2021-01-01', '2021-02-01']


def test_calendar_features():
    dates = pandas.DatetimeIndex(['2020-12-31 23:59', '2024-01-01 00:00'])  # a Thursday, a Monday
    late, early = calendar_features(dates)
    assert late.tolist() == pytest.approx([0.5, 0.5, 0, 0.5, 0.5], abs=1e-6)
    assert early.tolist() == [-0.5] * 5
    assert calendar_features(dates).dtype == np.float32


def test_without_pandas(write, monkeypatch):
    path = write(hourly())
    monkeypatch.setattr(series, 'pandas', None)
    with pytest.raises(MissingPackageError, match=r'pip install "unireplknet-mm\[time_series\]"'):
        read_series(path)
