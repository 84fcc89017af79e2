"""Every config of time series: model, data sets and the shape of a window agree; it forecasts."""

from pathlib import Path

import pandas
import pytest
import torch
from helpers import SMALL_ARCH, load_config
from mmengine.registry import DATASETS, MODELS
from mmengine.utils import import_modules_from_strings

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / 'configs' / 'time_series').glob('*.py'))


@pytest.fixture(scope='module', params=CONFIGS)
def cfg(request):
    return load_config(ROOT / 'configs' / 'time_series' / f'{request.param}.py')


def test_the_series_of_the_field_are_there():
    names = ' '.join(CONFIGS)
    for series in (
        'etth1',
        'etth2',
        'ettm1',
        'ettm2',
        'weather',
        'electricity',
        'traffic',
        'exchange',
        'ili',
    ):
        assert f'unireplknet_{series}_' in names
    for look_back in (96, 336):
        for horizon in (96, 192, 336, 720):
            assert f'unireplknet_etth1_{look_back}_{horizon}' in CONFIGS


ISO = '%Y-%m-%d %H:%M:%S'
# Config -> the first date, the step, rows and how dates are written of the file of the field; how many
# windows of training, validation and test others report (Time-Series-Library prints them).
FILES = {
    'etth2_96_96': ('2016-07-01', 'h', 17420, ISO, (8449, 2785, 2785)),
    'ettm1_96_96': ('2016-07-01', '15min', 69680, ISO, (34369, 11425, 11425)),
    'ettm2_96_96': ('2016-07-01', '15min', 69680, ISO, (34369, 11425, 11425)),
    'weather_96_96': ('2020-01-01 00:10', '10min', 52704, ISO, (36696, 5175, 10444)),
    'electricity_96_96': ('2016-07-01 02:00', 'h', 26304, ISO, (18221, 2537, 5165)),
    'traffic_96_96': ('2016-07-01 02:00', 'h', 17544, ISO, (12089, 1661, 3413)),
    'exchange_96_96': ('1990-01-01', 'D', 7588, '%Y/%-m/%-d 0:00', (5120, 665, 1422)),
    'ili_36_24': ('2002-01-01', '7D', 966, ISO, (617, 74, 170)),
}


@pytest.mark.parametrize('name', FILES)
def test_windows_of_the_files_of_the_field(name, tmp_path):
    """Files as long, with their dates; the two columns in the place of up to 862 do not matter here."""
    start, step, rows, written, counts = FILES[name]
    dates = pandas.Series(pandas.date_range(start, periods=rows, freq=step))
    if name.startswith('weather'):  # 52,696 rows: one comes twice, and nine are missing
        dates = pandas.concat([dates[:19044], dates[19043:21513], dates[21522:]])
    cfg = load_config(ROOT / 'configs' / 'time_series' / f'unireplknet_{name}.py')
    import_modules_from_strings(**cfg.custom_imports)
    path = tmp_path / cfg.test_dataloader.dataset.ann_file
    values = range(len(dates))
    pandas.DataFrame(dict(date=dates.dt.strftime(written), a=values, OT=values)).to_csv(
        path, index=False
    )
    datasets = [
        DATASETS.build(dict(cfg[f'{part}_dataloader'].dataset, data_root=str(tmp_path)))
        for part in ('train', 'val', 'test')
    ]
    assert tuple(map(len, datasets)) == counts
    # The last window of the test ends with the file, or with the 20 months of ETT.
    last = datasets[-1][len(datasets[-1]) - 1]
    used = 20 * cfg.month if 'month' in cfg else len(dates)
    deviation, mean = (datasets[-1].metainfo[key][0] for key in ('deviation', 'mean'))
    end = last['data_samples'].future[-1, 0].item() * deviation + mean
    assert end == pytest.approx(used - 1, abs=0.1)


def test_windows_agree(cfg):
    model = cfg.model
    name = Path(cfg.filename).stem
    for key in ('train', 'val', 'test'):
        dataset = cfg[f'{key}_dataloader'].dataset
        assert (dataset.look_back, dataset.horizon) == (model.look_back, model.horizon)
        if dataset.type == 'StationDataset':  # a file a part
            assert dataset.ann_file.endswith(f'_{key}.npy')
            assert dataset.dates_file == f'data_time_{key}.npy'
        else:
            assert dataset.part == key
            assert dataset.ann_file == cfg.train_dataloader.dataset.ann_file
            assert dataset.parts == cfg.train_dataloader.dataset.parts
        DATASETS.build(dict(dataset, lazy_init=True))
    assert cfg.input_shape == (model.look_back, model.variables)
    if 'table_11' not in name:
        assert name.endswith(f'_{model.look_back}_{model.horizon}')
    assert not cfg.train_dataloader.get('drop_last')


def test_it_forecasts(cfg):
    """With a small network in the place of those of the paper's size."""
    import_modules_from_strings(**cfg.custom_imports)
    model = cfg.model
    backbone = model.get('backbone') or {}
    if isinstance(backbone.get('arch'), str) or backbone.get('depth'):
        smaller = dict(
            UniRepLKNet=dict(arch=SMALL_ARCH),
            ConvNeXt=dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 16, 16])),
            ResNet=dict(depth=18),
        )
        backbone.update(smaller[backbone.type.split('.')[-1]])
    # Channel-independent ones do not depend on the number of variables, and hundreds take time.
    model.variables = variables = 2
    if 'tree' in model:
        model.variables = variables = 8
        model.tree = (2, 2)
        model.update(channels=48, heads=4)
        model.backbone.arch = dict(SMALL_ARCH, channels=(8, 16, 24, 48))
    built = MODELS.build(model).eval()
    rows = model.look_back + model.horizon
    with torch.no_grad():
        forecast = built(torch.randn(1, model.look_back, variables), torch.zeros(1, rows, 5))
    assert forecast.shape == (1, model.horizon, variables)
    assert forecast.isfinite().all()
