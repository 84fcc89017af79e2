"""Forecasting end to end with the tools: a CSV file by the `Forecaster`, stations by the paper's model."""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from helpers import randomise
from mmengine.config import Config
from mmengine.registry import MODELS
from tool_runs import CONFIGS, ROOT, read_losses, read_scores, run_forked

from unireplknet_mm.datasets import make_demo_data
from unireplknet_mm.export import load


@dataclass(frozen=True)
class Kind:
    """A model and its data: four batches of training in an epoch, windows of 6 rows of validation.

    Attributes:
        layout, windows, sizes: of its demo data.
        dataset: root -> what the data set of training, and those of validation and test, are told.
        truth: root -> what the first window of the test is to forecast, as the data set scales it.
        messages: of a training on demo data, and of one without data.
    """

    config: Path
    layout: str
    windows: tuple[int, int]
    sizes: dict[str, object]
    batch_size: int
    dataset: Callable[[Path, str], dict[str, object]]
    truth: Callable[[Path], np.ndarray]
    messages: dict[str, str]


def dataset_of_series(root, part):
    """40 windows for training and 8 for validation, which are the test as well."""
    part = part.replace('test', 'val')
    return dict(data_root=root, ann_file='series.csv', parts='(69,13,0)', part=part)


def truth_of_series(root):
    values = pandas.read_csv(root / 'series.csv', index_col='date').to_numpy()
    return ((values - values[:69].mean(axis=0)) / values[:69].std(axis=0))[69:75]


def truth_of_stations(root):
    return np.load(root / 'temp_global_hourly_test.npy')[16:22, :, 0] / 10


SERIES = Kind(
    config=CONFIGS / 'series_small.py',
    layout='series',
    windows=(40, 8),
    sizes=dict(variables=3, look_back=24, horizon=6),
    batch_size=10,
    dataset=dataset_of_series,
    truth=truth_of_series,
    messages=dict(
        demo='4 training and 2 validation windows in data/demo/series-',
        folder='data/time_series, which train_dataloader reads',
        source='https://github.com/zhouhaoyi/ETDataset',
    ),
)
STATIONS = Kind(
    config=CONFIGS / 'stations_small.py',
    layout='stations',
    windows=(8, 4),
    sizes=dict(stations=12, tree=(2, 3), look_back=16, horizon=6),
    batch_size=2,
    dataset=lambda root, part: dict(data_root=f'{root}/'),
    truth=truth_of_stations,
    messages=dict(
        demo='data/demo/stations-16look_back-6horizon-12stations-2x3tree-',
        folder='data/globe, which train_dataloader reads',
        source='https://github.com/thuml/Corrformer',
    ),
)


@pytest.fixture(scope='module', params=[SERIES, STATIONS], ids=lambda kind: kind.layout)
def kind(request):
    return request.param


@pytest.fixture(scope='module')
def make(tmp_path_factory):
    """The demo data of a kind, and the work dir of a training on them: once for all tests."""
    made = {}

    def make(kind):
        if kind.layout not in made:
            root = tmp_path_factory.mktemp(kind.layout)
            data = make_demo_data(kind.layout, root / 'data', *kind.windows, **kind.sizes)
            made[kind.layout] = data, root / 'work'
        return made[kind.layout]

    return make


@pytest.fixture
def train(make, call):
    """A training of two epochs, which the first test that wants it runs: its data and its work dir."""

    def train(kind):
        data, work_dir = make(kind)
        if not (work_dir / 'last_checkpoint').exists():
            call('train', kind.config, '--work-dir', work_dir, *settings(kind, data))
        return data, work_dir

    return train


def settings(kind, root, *more):
    options = ['default_hooks.logger.interval=1', 'log_processor.window_size=1']
    options += ['train_cfg.max_epochs=2', 'default_hooks.checkpoint.max_keep_ckpts=2']
    options += [f'train_dataloader.batch_size={kind.batch_size}']
    for part in ('train', 'val', 'test'):
        told = kind.dataset(root, part)
        options += [f'{part}_dataloader.dataset.{key}={value}' for key, value in told.items()]
    return ['--cfg-options', *options, *more]


def last_checkpoint(work_dir):
    return torch.load((work_dir / 'last_checkpoint').read_text(), weights_only=False)


@pytest.fixture
def decide(train):
    """The last checkpoint of a kind's training, with a backbone for which a wrong folding shows."""

    def decide(kind):
        _, work_dir = train(kind)
        path = work_dir / 'decided.pth'
        if not path.exists():
            checkpoint = last_checkpoint(work_dir)
            backbone = randomise(MODELS.build(Config.fromfile(kind.config).model).backbone)
            checkpoint['state_dict'].update(
                {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
            )
            torch.save(checkpoint, path)
        return path

    return decide


def test_a_resumed_training_goes_on_as_if_never_stopped(call, kind, train, tmp_path):
    data, whole = train(kind)
    first = whole / 'epoch_1.pth'
    call('train', kind.config, '--work-dir', tmp_path, '--resume', first, *settings(kind, data))
    (expected,), (after,) = read_losses(whole), read_losses(tmp_path)
    assert list(expected) == list(range(1, 9)) and len(set(expected.values())) == 8
    assert after == {step: expected[step] for step in range(5, 9)}
    states = [last_checkpoint(folder)['state_dict'] for folder in (whole, tmp_path)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert len(list(whole.glob('best_forecast_mse_epoch_*.pth'))) == 1


def test_mixed_precision_on_two_processes(kind, tmp_path):
    work_dir = tmp_path / 'work'
    arguments = ('--demo-data', '--amp', '--work-dir', work_dir)
    log = run_forked('train.py', kind.config, *arguments, cwd=tmp_path, ranks=2)
    assert 'CpuAmpOptimWrapper' in log and 'GPU number: 2' in log
    assert kind.messages['demo'] in log
    (losses,) = read_losses(work_dir)
    assert losses and all(loss > 0 for loss in losses.values())
    assert 'forecast/mse' in log


def test_every_form_forecasts_the_same(call, kind, make, decide, tmp_path):
    data, _ = make(kind)
    decided, deploy = decide(kind), tmp_path / 'deploy.pth'
    assert 'Wrote' in call('reparameterize', kind.config, decided, deploy)
    scores, forecasts = [], []
    for checkpoint, *options in ((decided,), (decided, '--deploy'), (deploy,)):
        work_dir, out = tmp_path / f'test {len(scores)}', tmp_path / 'predictions.pkl'
        options += ['--work-dir', work_dir, '--out', out, *settings(kind, data)]
        call('test', kind.config, checkpoint, *options)
        scores.append(read_scores(work_dir))
        predictions = pickle.loads(out.read_bytes())
        forecasts.append(torch.stack([sample['forecast'] for sample in predictions]))
    truth = torch.stack([sample['future'] for sample in predictions])
    assert len(truth) == kind.windows[1]
    assert truth[0].numpy() == pytest.approx(kind.truth(data), abs=1e-5)
    assert scores[0]['forecast/mse'] == pytest.approx(
        (forecasts[0] - truth).square().mean().item(), rel=1e-5
    )
    scale = truth.std().item()  # degrees, or standardised
    for score, forecast in zip(scores[1:], forecasts[1:], strict=True):
        assert torch.allclose(forecast, forecasts[0], atol=1e-4 * max(scale, 1))
        assert score['forecast/mae'] == pytest.approx(scores[0]['forecast/mae'], rel=1e-4)


def test_weights_of_another_look_back(call, make, decide, tmp_path):
    """They fit: the last map is one point for both."""
    options = ['model.look_back=32', 'test_dataloader.dataset.look_back=32']
    options = settings(SERIES, make(SERIES)[0], *options)
    message = 'trained on windows of 24 rows, but the model of the config sees 32'
    decided = decide(SERIES)
    assert message in call('forecast', SERIES.config, decided, '--no-band', *options, status=1)
    options = ['--work-dir', tmp_path, *options]
    assert message in call('test', SERIES.config, decided, *options, status=1)


def test_pictures(call, kind, make, decide, tmp_path):
    data, _ = make(kind)
    pictures = tmp_path / 'pictures'
    options = ('--work-dir', tmp_path / 'test', '--show-dir', pictures, *settings(kind, data))
    call('test', kind.config, decide(kind), *options)
    (picture,) = pictures.rglob('forecast_0.png')
    from PIL import Image

    assert len(np.unique(np.asarray(Image.open(picture)))) > 50


def test_missing_data(call, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = call('train', kind.config, status=1)
    assert kind.messages['folder'] in message and kind.messages['source'] in message


def test_flops(call, kind):
    text = call('get_flops', kind.config)
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert {'backbone', 'whole'} <= {*lines}
    cfg = Config.fromfile(kind.config)
    assert f'for one sample {tuple(cfg.input_shape)}' in text
    model = MODELS.build(cfg.model)
    model.backbone.switch_to_deploy()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert float(lines['whole'][1]) == pytest.approx(parameters / 1e6, abs=0.01)


def test_flops_of_another_backbone(call):
    """ConvNeXt-S of Table 11, of mmpretrain, is built and run where tensors have no numbers."""
    text = call('get_flops', ROOT / 'configs' / 'time_series' / 'table_11_convnext_s_etth1.py')
    (line,) = (line for line in text.splitlines() if line.startswith('backbone'))
    # Its 50.22 M parameters of ImageNet without the classifier, and with one input channel for three.
    expected = 50.2184 - (768 * 1000 + 1000 + 2 * 16 * 96) / 1e6
    assert float(line.split()[1]) == pytest.approx(expected, abs=0.01)


def test_the_checkpoint_says_where_the_stations_are(train):
    data, work_dir = train(STATIONS)
    places = np.load(data / 'stations_sorted.npy')
    expected = (places - places.mean(axis=0)) / places.std(axis=0)
    stored = last_checkpoint(work_dir)['state_dict']['places']
    assert np.allclose(stored.reshape(12, 3), expected, atol=1e-5)


def test_stations_are_no_csv_to_forecast(call):
    message = call('forecast', STATIONS.config, 'best.pth', '--csv', 'x.csv', status=1)
    assert 'forecasts weather stations' in message
    assert f'python tools/test.py {STATIONS.config} best.pth --show-dir DIR' in message


def test_a_nan_in_the_model_ends_the_training(call, make, tmp_path):
    """The data cannot hold one: a learning rate that is too large can."""
    options = settings(SERIES, make(SERIES)[0], 'optim_wrapper.optimizer.lr=1e30')
    message = call('train', SERIES.config, '--work-dir', tmp_path, *options, status=1)
    assert 'the loss is ' in message and 'sample_idx' in message


def test_a_nan_in_the_data_is_found_before_the_training(call, make, tmp_path):
    frame = pandas.read_csv(make(SERIES)[0] / 'series.csv')
    frame.loc[17, 'v2'] = np.nan
    frame.to_csv(tmp_path / 'series.csv', index=False)
    options = settings(SERIES, tmp_path)
    message = call('train', SERIES.config, '--work-dir', tmp_path / 'work', *options, status=1)
    assert '2020-01-01 17:00:00: v2 is nan, the first of 1 values' in message


def test_a_model_and_data_that_do_not_fit(call, make, tmp_path):
    options = settings(SERIES, make(SERIES)[0], 'model.horizon=7')
    message = call('train', SERIES.config, '--work-dir', tmp_path, *options, status=1)
    assert 'Forecaster forecasts 7 rows, but the windows have 6' in message


def test_forecasts_of_files(call, make, decide, tmp_path, monkeypatch):
    """Of the config's file from a date on; of another file, in the units of which it comes."""
    (data, _), decided, out = make(SERIES), decide(SERIES), tmp_path / 'out'
    options = settings(SERIES, data)
    arguments = (decided, '--start', '2020-01-03', '--out', out)
    text = call('forecast', SERIES.config, *arguments, *options)
    assert (
        'Forecast of 6 rows from 2020-01-03 00:00:00 to 2020-01-03 05:00:00, with a band of 80%'
        in text
    )
    table = pandas.read_csv(out / 'forecast.csv')
    names = [f'{name}{edge}' for name in ('v1', 'v2', 'v3') for edge in ('', ' lower', ' upper')]
    assert list(table.columns) == ['date', *names] and len(table) == 6
    assert table.notna().all(axis=None)
    assert (table['v1 lower'] <= table['v1 upper']).all()
    assert (out / 'forecast.png').stat().st_size > 10_000

    other = pandas.read_csv(data / 'series.csv')[40:]
    other.to_csv(tmp_path / 'other.csv', index=False)
    arguments = ('--csv', tmp_path / 'other.csv', '--no-band', '--out', out)
    monkeypatch.chdir(tmp_path)  # where there are no data
    text = call('forecast', SERIES.config, decided, *arguments)
    assert 'with no band' in text
    again = pandas.read_csv(out / 'forecast.csv')
    assert list(again.columns) == ['date', 'v1', 'v2', 'v3']
    assert pandas.Timestamp(again['date'][0]) == pandas.Timestamp(
        other['date'].iloc[-1]
    ) + pandas.Timedelta('1h')
    message = call('forecast', SERIES.config, decided, '--csv', 'none.csv', '--no-band', status=1)
    assert 'none.csv does not exist' in message
    assert not (tmp_path / 'forecast').exists()


def test_a_model_to_compare_with(call, tmp_path, monkeypatch):
    """It has neither an embedding nor a backbone."""
    monkeypatch.chdir(tmp_path)
    config = ROOT / 'configs' / 'time_series' / 'dlinear_etth1_96_96.py'
    workers = ('train_dataloader.num_workers=0', 'val_dataloader.num_workers=0')
    still = [f'{part}_dataloader.persistent_workers=False' for part in ('train', 'val')]
    options = ('--demo-data', '--work-dir', tmp_path / 'work', '--cfg-options', *workers, *still)
    call('train', config, *options)
    (losses,) = read_losses(tmp_path / 'work')
    assert list(losses) == [1, 2] and all(np.isfinite(loss) for loss in losses.values())


def test_a_file_takes_the_calendar_too(train, call):
    """Its score is that of the model only if it does."""
    pytest.importorskip('onnxscript', reason='no onnxscript package')
    pytest.importorskip('onnxruntime', reason='no onnxruntime package')
    data, work_dir = train(STATIONS)
    checkpoint = (work_dir / 'last_checkpoint').read_text()
    printed = call(
        *('export', STATIONS.config, checkpoint, '--format', 'onnx', '--dynamic', 'batch'),
        *('--score', '--out', work_dir / 'model.onnx', *settings(STATIONS, data)),
    )
    scores = re.findall(r': model (\S+), file (\S+)', printed)
    assert scores
    for model, file in scores:
        assert float(file) == pytest.approx(float(model), rel=1e-3)
    columns = load(work_dir / 'model.onnx').metadata['columns']
    assert list(columns)[:2] == ['station 1', 'station 2']
    assert columns['station 1'].keys() == {'mean', 'deviation'}


def test_the_backbone_of_a_forecaster_is_not_exported_alone(call, train):
    data, work_dir = train(SERIES)
    printed = call(
        *('export', SERIES.config, (work_dir / 'last_checkpoint').read_text(), '--format', 'onnx'),
        *('--backbone', '--out', work_dir / 'maps.onnx', *settings(SERIES, data)),
        status=1,
    )
    assert 'Forecaster takes what its embedding makes, no images: leave out --backbone' in printed
    assert not (work_dir / 'maps.onnx').exists()
