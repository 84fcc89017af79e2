"""Windows of the three parts: how many, which rows, standardised by what."""

import numpy as np
import pandas
import pytest
import torch
from mmengine.registry import DATASETS

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series import SeriesDataset, SeriesError
from unireplknet_mm.modalities.time_series.dataset import rows_of_parts

ROWS = 100


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        dict(
            date=pandas.date_range('2021-01-01', periods=ROWS, freq='h'),
            number=np.arange(ROWS),
            noise=rng.normal(5, 3, ROWS),
        )
    )
    frame.to_csv(tmp_path / 'series.csv', index=False)
    return tmp_path


def build(path, part='train', look_back=8, horizon=4, **kwargs):
    return SeriesDataset('series.csv', look_back, horizon, part, data_root=str(path), **kwargs)


@pytest.mark.parametrize(
    ('part', 'first', 'last'),
    # The first and the last row of all futures: those of the part, less the first past in training.
    [('train', 8, 69), ('val', 70, 79), ('test', 80, 99)],
)
def test_the_rows_of_each_part(path, part, first, last):
    dataset = build(path, part)
    assert len(dataset) == last - first + 1 - 4 + 1
    mean, deviation = (dataset.metainfo[key][0] for key in ('mean', 'deviation'))
    for index, row in ((0, first), (-1, last - 3)):
        window = dataset[index]
        past, future = (window[key][:, 0] * deviation + mean for key in ('past', 'future'))
        assert past == pytest.approx(np.arange(row - 8, row), abs=1e-4)
        assert future == pytest.approx(np.arange(row, row + 4), abs=1e-4)
        assert window['start'] == str(pandas.Timestamp('2021-01-01') + pandas.Timedelta(row, 'h'))
        assert window['past_calendar'].shape == (8, 5)
        hours = (window['future_calendar'][:, 1] + 0.5) * 23
        assert hours == pytest.approx(np.arange(row, row + 4) % 24, abs=1e-4)


def test_standardised_by_the_training_rows_alone(path):
    frame = pandas.read_csv(path / 'series.csv')
    train = frame[['number', 'noise']][:70]
    dataset = build(path, 'test')
    dataset.full_init()
    assert dataset.metainfo['columns'] == ['number', 'noise']
    assert dataset.metainfo['frequency'] == 'h'
    assert dataset.metainfo['mean'] == pytest.approx(train.mean().tolist())
    assert dataset.metainfo['deviation'] == pytest.approx(train.std(ddof=0).tolist())
    assert dataset.values[:70].mean(axis=0) == pytest.approx([0, 0], abs=1e-5)
    assert abs(dataset.values[80:, 0].mean()) > 1


def test_a_constant_column_is_only_shifted(path, log):
    frame = pandas.read_csv(path / 'series.csv')
    frame['noise'] = 0.1
    frame.to_csv(path / 'series.csv', index=False)
    dataset = build(path)
    assert np.abs(dataset[0]['past'][:, 1]).max() < 1e-12
    assert dataset.metainfo['deviation'][1] == 1
    assert any('constant in the training rows, so not scaled: noise' in line for line in log)


@pytest.mark.parametrize('row', [3, 90])
def test_values_that_single_precision_does_not_hold(path, row):
    frame = pandas.read_csv(path / 'series.csv')
    frame.loc[row, 'noise'] = 1e200
    frame.to_csv(path / 'series.csv', index=False)
    with pytest.raises(SeriesError, match=r'noise has values of up to 1e\+200, which single'):
        build(path)


@pytest.mark.parametrize(
    ('parts', 'rows', 'expected'),
    [
        ((0.7, 0.1, 0.2), 100, [70, 10, 20]),
        ((0.7, 0.1, 0.2), 966, [676, 97, 193]),  # ILI
        ((0.5, 0.1, 0.2), 10, [5, 1, 2]),
        ((8640, 2880, 2880), 17420, [8640, 2880, 2880]),  # ETTh1
        ((60, 40, 0), 100, [60, 40, 0]),
        ((0.8, 0.2, 0), 100, [80, 20, 0]),
        ((1.0, 0, 0), 100, [100, 0, 0]),
        ((60.0, 20.0, 20.0), 100, [60, 20, 20]),
    ],
)
def test_parts(parts, rows, expected):
    assert rows_of_parts(parts, rows, 'x.csv') == expected


@pytest.mark.parametrize(
    'parts', [(0.7, 0.3), (0.7, 0.3, 0.2), (70, 0.1, 0.2), (0.0, 0.5, 0.5), (5, -1, 2)]
)
def test_parts_that_are_none(parts):
    with pytest.raises(ArgumentError, match='parts'):
        rows_of_parts(parts, 100, 'x.csv')


def test_more_rows_asked_for_than_there_are():
    with pytest.raises(
        SeriesError, match=r'x.csv has 99 rows, the parts of the data set 60 \+ 20 \+ 20'
    ):
        rows_of_parts((60, 20, 20), 99, 'x.csv')


@pytest.mark.parametrize('part', ['train', 'val'])
def test_a_part_shorter_than_a_window(path, part):
    with pytest.raises(SeriesError) as error:
        build(path, part, look_back=68, horizon=12)
    assert f'the part {part!r} is rows ' in str(error.value)
    assert 'of 68 rows (look_back) and 12 to forecast (horizon)' in str(error.value)
    assert len(build(path, 'val', look_back=68, horizon=10)) == 1


@pytest.mark.parametrize(
    'arguments', [dict(part='valid'), dict(look_back=0), dict(horizon=0), dict(horizon=2.5)]
)
def test_arguments_out_of_range(path, arguments):
    with pytest.raises(ArgumentError):
        build(path, **arguments)


def test_packed_windows(path):
    config = dict(
        type='SeriesDataset',
        ann_file='series.csv',
        data_root=str(path),
        look_back=8,
        horizon=4,
        columns=['noise'],
        pipeline=[dict(type='PackWindow')],
    )
    packed = DATASETS.build(config)[3]
    assert packed['inputs'].shape == (8, 1) and packed['inputs'].dtype == torch.float32
    sample = packed['data_samples']
    assert sample.future.shape == (4, 1)
    hours = (packed['calendar'][:, 1] + 0.5) * 23
    assert torch.allclose(hours, torch.arange(3.0, 15), atol=1e-4)  # of past and future
    assert sample.sample_idx == 3 and sample.start == '2021-01-01 11:00:00'
