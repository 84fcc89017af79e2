"""The weather model end to end with the tools: training, going on, two processes, every form, pictures."""

import pickle

import numpy as np
import pytest
import torch
from helpers import randomise
from mmengine.config import Config
from mmengine.registry import MODELS
from tool_runs import CONFIGS, read_losses, read_scores, run_forked

from unireplknet_mm.datasets import make_demo_data

CONFIG = CONFIGS / 'stations_small.py'


@pytest.fixture(scope='module')
def globe(tmp_path_factory):
    return make_demo_data(
        'stations',
        tmp_path_factory.mktemp('globe') / 'data',
        8,
        4,
        stations=12,
        tree=(2, 3),
        look_back=16,
        horizon=6,
    )


def settings(root, *more):
    options = ['default_hooks.logger.interval=1', 'log_processor.window_size=1', *more]
    options += [f'{part}_dataloader.dataset.data_root={root}/' for part in ('train', 'val', 'test')]
    return ['--cfg-options', *options]


def last_checkpoint(work_dir):
    return torch.load((work_dir / 'last_checkpoint').read_text(), weights_only=False)


@pytest.fixture(scope='module')
def workplace(tmp_path_factory):
    return tmp_path_factory.mktemp('whole')


@pytest.fixture
def trained(globe, workplace, call):
    """The work dir of a training of two epochs, which the first test that wants it runs."""
    if not (workplace / 'last_checkpoint').exists():
        options = ['train_cfg.max_epochs=2', 'default_hooks.checkpoint.max_keep_ckpts=2']
        call('train', CONFIG, '--work-dir', workplace, *settings(globe, *options))
    return workplace


def test_stations_are_no_csv_to_forecast(call):
    message = call('forecast', CONFIG, 'best.pth', '--csv', 'x.csv', status=1)
    assert 'forecasts weather stations' in message
    assert f'python tools/test.py {CONFIG} best.pth --show-dir DIR' in message


def test_a_resumed_training_goes_on_as_if_never_stopped(call, globe, trained, tmp_path):
    options = settings(globe, 'train_cfg.max_epochs=2')
    call('train', CONFIG, '--work-dir', tmp_path, '--resume', trained / 'epoch_1.pth', *options)
    (expected,), (after,) = read_losses(trained), read_losses(tmp_path)
    assert list(expected) == list(range(1, 9)) and len(set(expected.values())) == 8
    assert after == {step: expected[step] for step in range(5, 9)}
    states = [last_checkpoint(folder)['state_dict'] for folder in (trained, tmp_path)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_the_checkpoint_says_where_the_stations_are(globe, trained):
    places = np.load(globe / 'stations_sorted.npy')
    expected = (places - places.mean(axis=0)) / places.std(axis=0)
    stored = last_checkpoint(trained)['state_dict']['places']
    assert np.allclose(stored.reshape(12, 3), expected, atol=1e-5)


def test_every_form_forecasts_the_same_and_is_drawn(call, globe, trained, tmp_path):
    checkpoint = last_checkpoint(trained)
    weights = checkpoint['state_dict']
    backbone = randomise(MODELS.build(Config.fromfile(CONFIG).model).backbone)
    weights.update({f'backbone.{name}': value for name, value in backbone.state_dict().items()})
    decided, deploy = tmp_path / 'decided.pth', tmp_path / 'deploy.pth'
    torch.save(checkpoint, decided)
    call('reparameterize', CONFIG, decided, deploy)
    scores, forecasts = [], []
    for path, *options in ((decided, '--show-dir', tmp_path / 'pictures'), (deploy,)):
        work_dir, out = tmp_path / f'test {len(scores)}', tmp_path / 'predictions.pkl'
        options += ['--work-dir', work_dir, '--out', out, *settings(globe)]
        call('test', CONFIG, path, *options)
        scores.append(read_scores(work_dir))
        predictions = pickle.loads(out.read_bytes())
        forecasts.append(torch.stack([sample['forecast'] for sample in predictions]))
    truth = torch.stack([sample['future'] for sample in predictions])
    raw = np.load(globe / 'temp_global_hourly_test.npy')[:, :, 0]
    assert np.allclose(truth[0], raw[16:22] / 10)
    assert scores[0]['forecast/mse'] == pytest.approx(
        (forecasts[0] - truth).square().mean().item(), rel=1e-5
    )
    assert torch.allclose(forecasts[1], forecasts[0], atol=1e-3)
    assert list((tmp_path / 'pictures').rglob('forecast_0.png'))


def test_mixed_precision_on_two_processes(tmp_path):
    work_dir = tmp_path / 'work'
    arguments = ('--demo-data', '--amp', '--work-dir', work_dir)
    log = run_forked('train.py', CONFIG, *arguments, cwd=tmp_path, ranks=2)
    assert 'CpuAmpOptimWrapper' in log and 'GPU number: 2' in log
    assert 'data/demo/stations-16look_back-6horizon-12stations-2x3tree-' in log
    (losses,) = read_losses(work_dir)
    assert losses and all(loss > 0 for loss in losses.values())


def test_missing_data(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = call('train', CONFIG, status=1)
    assert 'data/globe, which train_dataloader reads' in message
    assert 'https://github.com/thuml/Corrformer' in message


def test_flops(call):
    text = call('get_flops', CONFIG)
    model = MODELS.build(Config.fromfile(CONFIG).model)
    model.backbone.switch_to_deploy()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert float(lines['whole'][1]) == pytest.approx(parameters / 1e6, abs=0.01)
