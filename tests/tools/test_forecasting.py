"""Forecasting end to end with the tools: training, going on, testing in every form, counting."""

import pickle

import numpy as np
import pandas
import pytest
import torch
from helpers import randomise
from mmengine.config import Config
from mmengine.registry import MODELS
from tool_runs import CONFIGS, ROOT, read_losses, read_scores, run_forked

from unireplknet_mm.datasets import make_demo_data

CONFIG = CONFIGS / 'series_small.py'


@pytest.fixture
def series(tmp_path):
    return make_demo_data(
        'series', tmp_path / 'series', 40, 8, variables=3, look_back=24, horizon=6
    )


def settings(root, *more, epochs=2):
    """Data sets of a file with 40 windows for training and 8 for validation."""
    options = [f'train_cfg.max_epochs={epochs}', 'default_hooks.logger.interval=1']
    options += ['log_processor.window_size=1', *more]
    for part in ('train', 'val', 'test'):
        dataset = f'{part}_dataloader.dataset'
        options += [f'{dataset}.data_root={root}', f'{dataset}.ann_file=series.csv']
        options += [f'{dataset}.parts=(69,13,0)', f'{dataset}.part={part.replace("test", "val")}']
    return ['--cfg-options', *options, 'train_dataloader.batch_size=10']


def last_weights(work_dir):
    path = (work_dir / 'last_checkpoint').read_text()
    return torch.load(path, weights_only=False)['state_dict']


def test_a_resumed_training_goes_on_as_if_never_stopped(call, series, tmp_path):
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    options = settings(series, 'default_hooks.checkpoint.max_keep_ckpts=2')
    call('train', CONFIG, '--work-dir', whole, *options)
    call('train', CONFIG, '--work-dir', resumed, '--resume', whole / 'epoch_1.pth', *options)
    (expected,), (after,) = read_losses(whole), read_losses(resumed)
    assert list(expected) == list(range(1, 9)) and len(set(expected.values())) == 8
    assert after == {step: expected[step] for step in range(5, 9)}
    states = [last_weights(folder) for folder in (whole, resumed)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    best = list(whole.glob('best_forecast_mse_epoch_*.pth'))
    assert len(best) == 1


def test_mixed_precision_on_two_processes(tmp_path):
    work_dir = tmp_path / 'work'
    arguments = ('--demo-data', '--amp', '--work-dir', work_dir)
    log = run_forked('train.py', CONFIG, *arguments, cwd=tmp_path, ranks=2)
    assert 'CpuAmpOptimWrapper' in log and 'GPU number: 2' in log
    assert '4 training and 2 validation windows in data/demo/series-' in log
    (losses,) = read_losses(work_dir)
    assert losses and all(loss > 0 for loss in losses.values())
    assert 'forecast/mse' in log


@pytest.fixture
def decided(tmp_path, series, call):
    """A checkpoint of a training, with weights for which a wrong folding shows."""
    work_dir = tmp_path / 'work'
    call('train', CONFIG, '--work-dir', work_dir, *settings(series, epochs=1))
    path = (work_dir / 'last_checkpoint').read_text()
    checkpoint = torch.load(path, weights_only=False)
    model = randomise(MODELS.build(Config.fromfile(CONFIG).model))
    checkpoint['state_dict'] = model.state_dict()
    torch.save(checkpoint, work_dir / 'decided.pth')
    return work_dir / 'decided.pth'


def test_every_form_forecasts_the_same(call, series, decided, tmp_path):
    deploy = tmp_path / 'deploy.pth'
    text = call('reparameterize', CONFIG, decided, deploy)
    assert 'Wrote' in text
    scores, forecasts = [], []
    for checkpoint, *options in ((decided,), (decided, '--deploy'), (deploy,)):
        work_dir, out = tmp_path / f'test {len(scores)}', tmp_path / 'predictions.pkl'
        options += ['--work-dir', work_dir, '--out', out, *settings(series)]
        call('test', CONFIG, checkpoint, *options)
        scores.append(read_scores(work_dir))
        predictions = pickle.loads(out.read_bytes())
        forecasts.append(torch.stack([sample['forecast'] for sample in predictions]))
    truth = torch.stack([sample['future'] for sample in predictions])
    assert truth.shape == (8, 6, 3)
    assert scores[0]['forecast/mse'] == pytest.approx(
        (forecasts[0] - truth).square().mean().item(), rel=1e-5
    )
    for score, forecast in zip(scores[1:], forecasts[1:], strict=True):
        assert torch.allclose(forecast, forecasts[0], atol=1e-4)
        assert score['forecast/mae'] == pytest.approx(scores[0]['forecast/mae'], rel=1e-4)


def test_pictures(call, series, decided, tmp_path):
    pictures = tmp_path / 'pictures'
    options = ('--work-dir', tmp_path / 'test', '--show-dir', pictures, *settings(series))
    call('test', CONFIG, decided, *options)
    (picture,) = pictures.rglob('forecast_*.png')  # of the one batch
    from PIL import Image

    assert len(np.unique(np.asarray(Image.open(picture)))) > 50


def test_a_nan_in_the_model_ends_the_training(call, series, tmp_path):
    """The data cannot hold one: a learning rate that is too large can."""
    options = settings(series, 'optim_wrapper.optimizer.lr=1e30', epochs=3)
    message = call('train', CONFIG, '--work-dir', tmp_path / 'work', *options, status=1)
    assert 'the loss is ' in message and 'sample_idx' in message


def test_a_nan_in_the_data_is_found_before_the_training(call, series, tmp_path):
    path = series / 'series.csv'
    frame = pandas.read_csv(path)
    frame.loc[17, 'v2'] = np.nan
    frame.to_csv(path, index=False)
    message = call('train', CONFIG, '--work-dir', tmp_path / 'work', *settings(series), status=1)
    assert '2020-01-01 17:00:00: v2 is nan, the first of 1 values' in message


def test_missing_data(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = call('train', CONFIG, status=1)
    assert 'data/time_series, which train_dataloader reads' in message
    assert 'https://github.com/zhouhaoyi/ETDataset' in message


def test_a_model_and_data_that_do_not_fit(call, series, tmp_path):
    options = settings(series, 'model.horizon=7')
    message = call('train', CONFIG, '--work-dir', tmp_path / 'work', *options, status=1)
    assert 'Forecaster forecasts 7 rows, but the windows have 6' in message


def test_flops(call):
    text = call('get_flops', CONFIG)
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert {'embedding', 'backbone', 'head', 'whole'} <= {*lines}
    assert 'for one sample (24, 3)' in text
    model = MODELS.build(Config.fromfile(CONFIG).model)
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


def test_forecasts_of_files(call, series, decided, tmp_path, monkeypatch):
    """Of the config's file from a date on; of another file, in the units of which it comes."""
    out = tmp_path / 'out'
    options = settings(series)
    text = call('forecast', CONFIG, decided, '--start', '2020-01-03', '--out', out, *options)
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

    other = pandas.read_csv(series / 'series.csv')[40:]
    other.to_csv(tmp_path / 'other.csv', index=False)
    arguments = ('--csv', tmp_path / 'other.csv', '--no-band', '--out', out)
    monkeypatch.chdir(tmp_path)  # where there are no data
    text = call('forecast', CONFIG, decided, *arguments)
    assert 'with no band' in text
    again = pandas.read_csv(out / 'forecast.csv')
    assert list(again.columns) == ['date', 'v1', 'v2', 'v3']
    assert pandas.Timestamp(again['date'][0]) == pandas.Timestamp(
        other['date'].iloc[-1]
    ) + pandas.Timedelta('1h')
    message = call('forecast', CONFIG, decided, '--csv', 'none.csv', '--no-band', status=1)
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
