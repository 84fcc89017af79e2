"""Demo data of weather stations: a globe in the files of Corrformer's data, read by the real data set."""

from pathlib import Path

import numpy as np
import pytest
from helpers import load_config
from mmengine.registry import DATASETS

from unireplknet_mm.datasets import make_demo_data, use_demo_data
from unireplknet_mm.datasets.globe import (
    order_by_tree,
    places_on_a_sphere,
    synthesise_weather,
)
from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities import time_series  # noqa: F401

CONFIGS = Path(__file__).resolve().parents[3] / 'configs' / 'time_series'


def test_places_are_spread_evenly():
    """As many north of 30° as between 0° and 30°, for the sphere has as much surface there."""
    places = places_on_a_sphere(400)
    north = [
        ((places[:, 0] >= low) & (places[:, 0] < high)).sum() for low, high in ((0, 30), (30, 90))
    ]
    assert north == [100, 100]
    quarters, _ = np.histogram(places[:, 1], bins=4, range=(-180, 180))
    assert abs(quarters - 100).max() <= 3


def test_a_node_is_a_neighbourhood():
    places = places_on_a_sphere(240)
    order = order_by_tree(places, (4, 6))
    assert sorted(order) == list(range(240))
    nodes = places[order][:, :2].reshape(24, 10, 2)
    assert nodes.std(axis=1).mean() < 0.3 * places[:, :2].std(axis=0).mean()
    # Those of one branch of the first level share a range of longitudes.
    branches = places[order][:, 1].reshape(4, 60)
    assert (branches.max(axis=1)[:-1] <= branches.min(axis=1)[1:]).all()


def test_temperatures_have_seasons_of_a_day_and_waves_that_travel():
    places = np.array([[0.0, longitude, 0] for longitude in (-90, 0, 90)])
    hours = np.arange(24 * 100)
    values = synthesise_weather(places, hours, 'temp', 0)
    spectrum = np.abs(np.fft.rfft(values - values.mean(axis=0), axis=0))
    assert (spectrum[100] > 20 * np.median(spectrum, axis=0)).all()
    warmest = values.reshape(100, 24, 3).mean(axis=0).argmax(axis=0)
    assert abs((warmest + np.array([-6, 0, 6]) - 14 + 12) % 24 - 12).max() <= 1  # local time
    by_day = values.reshape(100, 24, 3).mean(axis=1)
    assert by_day.std(axis=0).min() > 1


def test_the_poles_are_cold_and_the_wind_is_positive():
    places = np.array([[0.0, 0, 0], [80, 0, 0]])
    temperature = synthesise_weather(places, np.arange(500), 'temp', 0).mean(axis=0)
    assert temperature[0] > temperature[1] + 20
    assert synthesise_weather(places, np.arange(500), 'wind', 0).min() >= 0


def test_the_files(tmp_path):
    parameters = dict(stations=12, tree=(2, 3), look_back=8, horizon=4, quantity='wind')
    folder = make_demo_data('stations', tmp_path / 'one', 10, 4, **parameters)
    for part, rows in dict(train=21, val=15, test=15).items():
        values = np.load(folder / f'wind_global_hourly_{part}.npy')
        assert values.shape == (rows, 12, 1)
        assert np.array_equal(values, values.round()) and 10 < values.mean() < 100  # tenths
        dates = np.load(folder / f'data_time_{part}.npy')
        assert (np.diff(dates) == np.timedelta64(1, 'h')).all() and len(dates) == rows
    assert np.load(folder / 'data_time_val.npy')[0] > np.load(folder / 'data_time_train.npy')[-1]
    assert np.load(folder / 'stations_sorted.npy').shape == (12, 3)
    again = make_demo_data('stations', tmp_path / 'two', 10, 4, **parameters)
    for path in folder.glob('*.npy'):
        assert path.read_bytes() == (again / path.name).read_bytes()


@pytest.mark.parametrize('name', ['unireplknet_globe_48_24', 'unireplknet_s_global_wind_48_24'])
def test_a_config_on_demo_data(tmp_path, name):
    cfg = use_demo_data(load_config(CONFIGS / f'{name}.py'), tmp_path, 3, 2)
    for key, length in (('train', 3), ('val', 2), ('test', 2)):
        dataset = DATASETS.build(cfg[f'{key}_dataloader'].dataset)
        assert len(dataset) == length
        assert dataset[0]['inputs'].shape == (48, cfg.model.variables)
        assert ('wind' in dataset.ann_file) == ('wind' in name)


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        (dict(stations=10), r'10 stations cannot be split into the nodes of tree=\[4, 6\]'),
        (dict(tree=[0, 2]), 'cannot be split'),
        (dict(look_back=0), 'look_back must be at least 1, not 0'),
        (dict(quantity='rain'), "quantity must be temp or wind, not 'rain'"),
    ],
)
def test_parameters_out_of_range(tmp_path, parameters, message):
    with pytest.raises(ArgumentError, match=message):
        make_demo_data('stations', tmp_path / 'x', 4, **parameters)
