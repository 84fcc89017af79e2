"""Files of weather stations: what they hold, what is refused, how a model learns of places."""

import datetime
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
import torch
from mmengine.registry import DATASETS

from unireplknet_mm.errors import ArgumentError, MissingFileError
from unireplknet_mm.modalities.time_series import (
    SeriesError,
    StationPlacesHook,
    WeatherForecaster,
)
from unireplknet_mm.modalities.time_series.drawing import draw_stations, to_image

ROWS, STATIONS = 30, 6


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / 'values.npy', rng.integers(-300, 300, (ROWS, STATIONS, 1)).astype(float))
    np.save(tmp_path / 'dates.npy', np.datetime64('2020-02-28T20', 'h') + np.arange(ROWS))
    np.save(tmp_path / 'places.npy', rng.uniform(-80, 80, (STATIONS, 3)))
    return tmp_path


def build(root, **kwargs):
    arguments = dict(
        ann_file='values.npy',
        dates_file='dates.npy',
        places_file='places.npy',
        data_root=str(root),
        look_back=8,
        horizon=4,
        unit=0.1,
        pipeline=[dict(type='PackWindow')],
    )
    return DATASETS.build(dict(arguments, type='StationDataset', **kwargs))


def test_windows(root):
    dataset = build(root)
    raw = np.load(root / 'values.npy')[:, :, 0]
    assert len(dataset) == ROWS - 8 - 4 + 1
    for index in (0, len(dataset) - 1):
        window = dataset[index]
        assert np.allclose(window['inputs'], raw[index : index + 8] / 10)
        assert np.allclose(window['data_samples'].future, raw[index + 8 : index + 12] / 10)
        assert window['inputs'].dtype == torch.float32
        assert window['calendar'].shape == (12, 5)
    assert dataset[0]['data_samples'].start == '2020-02-29 04:00:00'
    hours = (dataset[0]['calendar'][:, 1] + 0.5) * 23
    assert torch.allclose(hours, (torch.arange(20.0, 32) % 24), atol=1e-4)
    assert np.array_equal(dataset.metainfo['places'], np.load(root / 'places.npy'))


def test_values_of_two_dimensions_and_of_integers(root):
    raw = np.load(root / 'values.npy')
    expected = build(root)[3]['inputs']
    np.save(root / 'values.npy', raw[:, :, 0].astype(np.int16))
    assert torch.equal(build(root)[3]['inputs'], expected)


def test_values_stay_on_the_disk(root):
    assert isinstance(build(root).values, np.memmap)


@pytest.mark.parametrize('kind', ['datetime', 'text', 'pandas'])
def test_dates_as_objects(root, kind):
    """`data_time_*.npy` are read with allow_pickle by the published code; what of is not known."""
    dates = pandas.date_range('2020-02-28 20:00', periods=ROWS, freq='h')
    saved = dict(
        datetime=np.array(dates.to_pydatetime(), object),
        text=np.array(dates.astype(str), object),
        pandas=dates.to_numpy(),
    )[kind]
    if kind == 'datetime':
        assert isinstance(saved[0], datetime.datetime)
    np.save(root / 'dates.npy', saved, allow_pickle=True)
    assert list(build(root).dates) == list(dates)


class Evil:
    def __reduce__(self):
        return print, ('this must not run',)


def test_a_pickle_runs_no_code(root, capfd):
    np.save(root / 'dates.npy', np.array([Evil()] * ROWS), allow_pickle=True)
    with pytest.raises(
        SeriesError,
        match=r'cannot be read as an .npy file: it names builtins.print, which is no array',
    ):
        build(root)
    assert 'must not run' not in capfd.readouterr().out


@pytest.mark.parametrize('name', ['values', 'dates', 'places'])
def test_files_that_are_not_there_or_cut_off(root, name):
    path = root / f'{name}.npy'
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SeriesError, match=rf'{name}.npy cannot be read as an .npy file'):
        build(root)
    path.write_text('no numpy')
    with pytest.raises(SeriesError, match=rf'{name}.npy cannot be read as an .npy file'):
        build(root)
    path.unlink()
    with pytest.raises(MissingFileError, match=rf'{name}.npy does not exist'):
        build(root)


def change(array, *place_and_value):
    *place, value = place_and_value
    array[tuple(place)] = value
    return array


HOURS = np.datetime64('2020-02-28T20', 'h') + np.arange(ROWS)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('values', np.zeros((ROWS, STATIONS, 3)), '30 × 6 × 3 float64: rows × stations'),
        ('values', np.zeros((ROWS, STATIONS), bool), '30 × 6 bool'),
        (
            'values',
            change(np.zeros((ROWS, STATIONS)), 4, 2, np.nan),
            'row 5: station 3 is nan, which is no finite number',
        ),
        ('values', np.zeros((ROWS - 1, STATIONS)), '30 dates, but there are 29 rows in'),
        ('values', np.zeros((ROWS, STATIONS + 1)), '6 stations, but there are 7 columns in'),
        ('dates', np.arange(ROWS), 'holds no dates: 30 int64'),
        ('dates', np.array(['then'] * ROWS), 'holds no dates'),
        ('dates', HOURS[::-1].copy(), 'row 2: 2020-03-01 00:00:00 comes after 2020-03-01 01:00:00'),
        (
            'dates',
            change(HOURS.copy(), 7, HOURS[6]),
            'row 8: 2020-02-29 02:00:00 comes after 2020-02-29 02',
        ),
        ('dates', change(HOURS.copy(), slice(9, None), HOURS[9:] + 1), 'row 10: .* another step'),
        ('places', np.zeros((STATIONS, 2)), '6 × 2: 3 finite numbers a station are needed'),
        ('places', np.array([['a', 'b', 'c']] * STATIONS), '6 × 3: 3 finite numbers'),
    ],
)
def test_files_that_do_not_fit(root, name, content, message):
    np.save(root / f'{name}.npy', content)
    with pytest.raises(SeriesError, match=message):
        build(root)


def test_gaps_can_be_ignored(root, log):
    np.save(root / 'dates.npy', change(HOURS.copy(), slice(9, None), HOURS[9:] + 1))
    assert len(build(root, missing='ignore')) == 19
    assert any('The rows are taken as they are' in line for line in log)


def test_fewer_rows_than_a_window(root):
    with pytest.raises(SeriesError, match='30 rows, too few for one window of 28'):
        build(root, look_back=28)


@pytest.mark.parametrize(
    'arguments', [dict(look_back=0), dict(horizon=0), dict(missing='interpolate')]
)
def test_arguments_that_are_none(root, arguments):
    with pytest.raises(ArgumentError):
        build(root, **arguments)


def weather_model(variables=STATIONS):
    backbone = dict(
        type='UniRepLKNet',
        arch=dict(depths=(1, 1, 1, 1), channels=(8, 8, 8, 8), kernel_sizes=(3, 3, 3, 3)),
        in_channels=1,
        out_indices=(3,),
    )
    sizes = dict(look_back=8, horizon=4, variables=variables, label=4)
    return WeatherForecaster(
        backbone, (3,), channels=8, heads=2, feed_forward=8, decomposition=3, **sizes
    )


def test_the_model_learns_of_places_from_the_data(root):
    model, places = weather_model(), np.load(root / 'places.npy')
    loader = SimpleNamespace(dataset=build(root))
    StationPlacesHook().before_train(SimpleNamespace(model=model, train_dataloader=loader))
    expected = (places - places.mean(axis=0)) / places.std(axis=0)
    # A node's row holds the three numbers of one station after the other.
    assert np.allclose(model.places.reshape(STATIONS, 3), expected, atol=1e-5)
    assert 'places' in model.state_dict()
    x = torch.randn(1, 8, STATIONS)
    model.eval()
    before = model(x)
    model.places.mul_(-1)
    assert not torch.allclose(model(x), before)
    with pytest.raises(
        ArgumentError, match='has 9 stations of 3 numbers each, not places of 6 × 3'
    ):
        weather_model(9).set_places(places)


def test_a_station_that_does_not_change_is_finite():
    model = weather_model().train()
    model.set_places(np.ones((STATIONS, 3)))  # nor do the places
    loss = model(torch.full((2, 8, STATIONS), 5.0)).square().mean()
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_data_set_without_places():
    runner = SimpleNamespace(
        model=weather_model(),
        train_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo={})),
    )
    with pytest.raises(ArgumentError, match='needs a StationDataset'):
        StationPlacesHook().before_train(runner)


def test_the_calendar_of_past_and_future(root):
    model = weather_model().eval()
    x, calendar = torch.randn(1, 8, STATIONS), torch.rand(1, 12, 5)
    forecast = model(x, calendar)
    for row in (
        3,
        10,
    ):  # of the past, which the encoder sees; of the future, which the decoder does
        changed = calendar.clone()
        changed[:, row] += 1
        assert not torch.allclose(model(x, changed), forecast)
    with pytest.raises(ArgumentError, match='calendar of past and future, 12 rows, not 8'):
        model(x, calendar[:, :8])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(tree=(4,)), '6 stations cannot be split into the 4 nodes'),
        (dict(tree=(0,)), r'tree=\(0,\) must have a level, and 1 branch or more'),
        (dict(tree=()), r'tree=\(\) must have a level'),
        (dict(label=9), 'label=9 must be from 1 to the look-back of 8'),
        (dict(channels=16), 'has 8 channels, the decoder 16'),
        (dict(heads=3), 'heads=3 do not divide channels=8'),
        (dict(decomposition=4), 'odd size of a moving average'),
    ],
)
def test_arguments_of_the_model_out_of_range(arguments, message):
    backbone = dict(
        type='UniRepLKNet',
        arch=dict(depths=(1, 1, 1, 1), channels=(8, 8, 8, 8), kernel_sizes=(3, 3, 3, 3)),
        in_channels=1,
        out_indices=(3,),
    )
    settings = dict(
        look_back=8, horizon=4, variables=STATIONS, tree=(3,), channels=8, label=4, heads=2
    )
    with pytest.raises(ArgumentError, match=message):
        WeatherForecaster(backbone, **settings | arguments)


def test_a_picture_shows_where_the_error_is():
    places = np.array(
        [[60.0, -100, 0], [20, 50, 0], [-20, 100, 0], [-50, 0, 0], [0, 150, 0], [10, 0, 0]]
    )
    past, truth = np.zeros((8, 6)), np.ones((4, 6))
    images = [
        to_image(draw_stations(past, truth + error, truth, places))
        for error in (0, np.array([0, 3, 0, 0, 0, 0]))
    ]
    assert images[0].shape == images[1].shape
    differs = (images[0] != images[1]).any(axis=2)
    height, width = differs.shape
    assert differs[: height // 2, : width // 3].any()  # the map of the forecast
    assert differs[: height // 2, 2 * width // 3 :].any()  # that of the error
    assert not np.array_equal(images[0], to_image(draw_stations(past + 1, truth, truth, places)))
