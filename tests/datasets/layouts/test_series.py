"""Demo data of time series: as many rows as the windows need, read by the real data set."""

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS

from unireplknet_mm.datasets import make_demo_data, use_demo_data
from unireplknet_mm.datasets.layouts.series import synthesise
from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series import read_series


def config(look_back=24, horizon=6, variables=3):
    def loader(part):
        dataset = dict(
            type='SeriesDataset',
            ann_file='own.csv',
            data_root='data/own',
            look_back=look_back,
            horizon=horizon,
            columns=['a', 'b', 'c'],
            part=part,
            pipeline=[dict(type='PackWindow')],
        )
        return dict(batch_size=32, num_workers=2, dataset=dataset)

    return Config(
        dict(
            model=dict(type='DLinear', variables=variables),
            train_dataloader=loader('train'),
            val_dataloader=loader('val'),
            test_dataloader=loader('test'),
        )
    )


def test_the_file(tmp_path):
    parameters = dict(variables=2, look_back=24, horizon=6, seed=1)
    folder = make_demo_data('series', tmp_path / 'one', 10, 4, **parameters)
    series = read_series(folder / 'series.csv')
    assert len(series) == 24 + 6 + 10 - 1 + 6 + 4 - 1
    assert series.columns == ('v1', 'v2') and series.frequency == 'h'
    again = make_demo_data('series', tmp_path / 'two', 10, 4, **parameters)
    assert (again / 'series.csv').read_bytes() == (folder / 'series.csv').read_bytes()
    other = make_demo_data('series', tmp_path / 'three', 10, 4, **parameters | dict(seed=2))
    assert (other / 'series.csv').read_bytes() != (folder / 'series.csv').read_bytes()


def test_a_longer_series_begins_with_the_shorter():
    assert np.array_equal(synthesise(400, 3, 0)[:100], synthesise(100, 3, 0))


def test_there_is_a_daily_cycle():
    values = synthesise(24 * 200, 3, 0)
    spectrum = np.abs(np.fft.rfft(values - values.mean(axis=0), axis=0))
    assert (spectrum[200] > 20 * np.median(spectrum, axis=0)).all()


def test_a_config_on_demo_data(tmp_path):
    cfg = use_demo_data(config(), tmp_path, train_images=5, val_images=3)
    folder = tmp_path / 'series-3variables-24look_back-6horizon-5train-3val'
    for key, length in (('train', 5), ('val', 3), ('test', 3)):
        settings = cfg[f'{key}_dataloader'].dataset
        assert settings.data_root == f'{folder}/' and settings.columns is None
        dataset = DATASETS.build(settings)
        assert len(dataset) == length
        assert dataset[0]['inputs'].shape == (24, 3)
        assert dataset[0]['data_samples'].future.shape == (6, 3)


def test_one_window_each(tmp_path):
    cfg = use_demo_data(config(), tmp_path, train_images=1, val_images=1)
    assert [len(DATASETS.build(cfg[f'{key}_dataloader'].dataset)) for key in ('train', 'val')] == [
        1,
        1,
    ]


def test_data_sets_of_different_windows(tmp_path):
    cfg = config()
    cfg.val_dataloader.dataset.horizon = 7
    with pytest.raises(ArgumentError, match='differ in look_back or horizon'):
        use_demo_data(cfg, tmp_path)


@pytest.mark.parametrize('parameter', ['variables', 'look_back', 'horizon'])
def test_parameters_out_of_range(tmp_path, parameter):
    with pytest.raises(ArgumentError, match=f'{parameter} must be at least 1, not 0'):
        make_demo_data('series', tmp_path / 'x', 4, **{parameter: 0})
