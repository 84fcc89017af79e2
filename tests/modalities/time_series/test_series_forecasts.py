"""Forecasts of a file: which rows go in, which dates come out, in which units, within which band."""

import runpy
import sys

import numpy as np
import pandas
import pytest
from mmengine.registry import DATASETS

from unireplknet_mm.errors import UserError
from unireplknet_mm.modalities.time_series import (
    SeasonalNaive,
    SeriesError,
    forecasting,
    read_series,
    series,
)
from unireplknet_mm.modalities.time_series.drawing import draw_forecast, to_image
from unireplknet_mm.modalities.time_series.forecasting import (
    error_band,
    forecast_errors,
    forecast_series,
    share_within,
    standardisation_of,
)

STATED = dict(columns=['a', 'b'], mean=[10.0, -5.0], deviation=[4.0, 0.5])
ROWS = 60


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    dates = pandas.date_range('2021-01-01', periods=ROWS, freq='h')
    frame = pandas.DataFrame(dict(date=dates, a=np.arange(ROWS), b=rng.normal(0, 1, ROWS)))
    frame.to_csv(tmp_path / 'series.csv', index=False)
    return tmp_path / 'series.csv'


@pytest.fixture
def naive():
    return SeasonalNaive(season=3, look_back=6, horizon=4, variables=2)


def test_it_is_read_series_that_asks_for_pandas(monkeypatch):
    """With the name of the extra, before which nothing fails."""
    monkeypatch.setitem(sys.modules, 'pandas', None)
    monkeypatch.setattr(series, 'pandas', None)
    assert runpy.run_path(forecasting.__file__)['forecast_series']


def test_beyond_the_end(path, naive):
    series = read_series(path)
    result = forecast_series(naive, series, STATED)
    assert result.past == pytest.approx(series.values[-6:])
    assert result.values[:, 0] == pytest.approx([57, 58, 59, 57], abs=1e-4)
    assert result.values[:3, 1] == pytest.approx(series.values[-3:, 1], abs=1e-5)
    assert np.isnan(result.truth).all() and result.band is None
    assert str(result.dates[0]) == '2021-01-03 12:00:00' and len(result.dates) == 4
    table = result.table()
    assert list(table.columns) == ['a', 'b'] and table.index.name == 'date'


@pytest.mark.parametrize(
    ('start', 'row'), [('2021-01-01 06:00', 6), ('2021-01-03 10:00', 58), ('2021-01-03 12:00', 60)]
)
@pytest.mark.parametrize('zone', ['', '+00:00'])
def test_from_a_date(path, naive, start, row, zone):
    series = read_series(path)
    result = forecast_series(naive, series, STATED, start + zone)
    assert result.values[0, 0] == pytest.approx(row - 3, abs=1e-4)
    assert result.past_dates[-1] == result.dates[0] - pandas.Timedelta('1h')
    assert result.dates.equals(pandas.date_range(start, periods=4, freq='h'))
    known = min(4, ROWS - row)
    assert result.truth[:known, 0] == pytest.approx(np.arange(row, row + known))
    assert np.isnan(result.truth[known:]).all()


@pytest.mark.parametrize(
    ('start', 'message'),
    [
        ('2021-01-01 05:00', 'the model sees 6 rows, but there are 5 before 2021-01-01 05:00'),
        ('2021-01-01 06:30', '06:30:00 is no date of the series, which has one every h'),
        ('2031-01-01', 'is no date of the series'),
        ('tomorrow morning', "'tomorrow morning' is no date"),
        ('', "'' is no date"),
        ('03/01/2021', "'03/01/2021' may be day and month or month and day"),
    ],
)
def test_dates_that_cannot_be_forecast(path, naive, start, message):
    with pytest.raises(SeriesError, match=message):
        forecast_series(naive, read_series(path), STATED, start)


def test_from_a_date_that_comes_twice(path, naive):
    frame = pandas.read_csv(path)
    pandas.concat([frame[:21], frame[20:]]).to_csv(path, index=False)
    series = read_series(path, missing='ignore')
    result = forecast_series(naive, series, STATED, frame['date'][20])
    assert result.past[-1, 0] == 19
    assert result.truth[:3, 0].tolist() == [20, 20, 21]


@pytest.mark.parametrize(
    ('learned', 'fits'),
    [('h', True), ('60min', True), (None, True), ('15min', False), ('D', False)],
)
def test_rows_of_another_length_than_learned(path, naive, learned, fits):
    series = read_series(path)
    stated = STATED if learned is None else dict(STATED, frequency=learned)
    if fits:
        assert len(forecast_series(naive, series, stated).dates) == 4
        return
    message = f'has a row every h, but the model was trained on one every {learned}'
    with pytest.raises(SeriesError, match=message):
        forecast_series(naive, series, stated)


def test_months_are_as_long_by_their_first_days_as_by_their_last(tmp_path):
    path = tmp_path / 'months.csv'
    dates = pandas.date_range('2015-01-31', periods=40, freq='ME')
    pandas.DataFrame(dict(date=dates, a=range(40), b=range(40))).to_csv(path, index=False)
    naive = SeasonalNaive(season=12, look_back=12, horizon=3, variables=2)
    result = forecast_series(naive, read_series(path), dict(STATED, frequency='MS'))
    assert str(result.dates[0].date()) == '2018-05-31'


def test_the_band_holds_the_share_of_errors(path, naive):
    dataset = DATASETS.build(
        dict(
            type='SeriesDataset',
            ann_file=str(path),
            look_back=6,
            horizon=4,
            part='val',
            parts=(20, 40, 0),
            pipeline=[dict(type='PackWindow')],
        )
    )
    errors = forecast_errors(naive, dataset, batch_size=7)
    futures, forecasts = [], []
    for window in dataset:
        futures.append(window['data_samples'].future.numpy())
        forecasts.append(naive(window['inputs'][None])[0].numpy())
    assert errors == pytest.approx(np.stack(futures) - np.stack(forecasts))
    lower, upper = error_band(errors, 0.5)
    assert share_within(errors, (lower, upper))[:, 1] == pytest.approx(np.full(4, 0.5), abs=0.05)
    assert share_within(errors + 100, (lower, upper)).tolist() == [[0, 0]] * 4
    # The first variable rises by one a row: three too few for the first season, six for the next row.
    deviation = dataset.metainfo['deviation'][0]
    assert lower[:, 0] * deviation == pytest.approx([3, 3, 3, 6], abs=1e-4)
    stated = {key: dataset.metainfo[key] for key in ('mean', 'deviation')}
    result = forecast_series(naive, read_series(path), stated)
    result = result.with_band((lower, upper), stated['deviation'])
    assert result.band[0][:, 0] == pytest.approx([60, 61, 62, 63], abs=1e-3)
    assert list(result.table().columns) == ['a', 'a lower', 'a upper', 'b', 'b lower', 'b upper']


def test_a_checkpoint_without_standardisation():
    with pytest.raises(
        UserError, match=r'checkpoint x.pth does not say how its series was standardised'
    ):
        standardisation_of(dict(dataset_meta=dict(classes=['a'])), 'x.pth')
    assert standardisation_of(dict(dataset_meta=STATED), 'x.pth') == STATED


def test_a_picture_shows_what_it_is_given(path, naive):
    past, forecast = np.random.rand(6, 10), np.random.rand(4, 10)
    plain = to_image(draw_forecast(past, forecast))
    assert plain.dtype == np.uint8 and plain.ndim == 3
    band = (forecast - 0.2, forecast + 0.2)
    with_more = to_image(draw_forecast(past, forecast, forecast + 0.1, band, band_label='band'))
    assert with_more.shape == plain.shape and (with_more != plain).mean() > 0.01
    figure = draw_forecast(
        past, forecast, columns=[f'column {i}' for i in range(10)], title='title'
    )
    assert [axis.get_ylabel() for axis in figure.axes] == [f'column {i}' for i in range(8)]
    assert figure.get_suptitle() == 'title (2 more variables not shown)'
