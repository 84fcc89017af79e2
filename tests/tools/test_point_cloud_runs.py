"""Point clouds through the tools: trained by two processes, killed and resumed, tested, predicted."""

import json

import cv2
import numpy as np
import pytest
import torch
from helpers import save_random_weights
from predictions import in_both_forms
from tool_runs import (
    CONFIGS,
    ROOT,
    compare_losses,
    kill_and_resume,
    run_forked,
    train_on_two_processes_in_bfloat16,
)

from unireplknet_mm.datasets.demo import make_demo_data
from unireplknet_mm.modalities.point_cloud.datasets import SCAN_CLASSES

CONFIG = CONFIGS / 'point_cloud_small.py'
# Weights and optimizer state matter.
OPTIONS = (
    'default_hooks.logger.interval=1',
    'log_processor.window_size=1',
    'optim_wrapper.optimizer.lr=0.01',
    'train_cfg.val_interval=4',
    'model.backbone.layer_scale_init_value=0.5',
)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'scanobjectnn'
    return make_demo_data('scanobjectnn', root, 12, 4, points=100)


def settings(data, *more) -> list[str]:
    roots = [f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')]
    return ['--cfg-options', *OPTIONS, *roots, *more]


def test_a_killed_training_goes_on_with_the_same_losses(data, tmp_path):
    """With worker processes; turns, scales, shifts, jitter and dropped points are drawn as before."""
    arguments = (CONFIG, *settings(data, 'train_cfg.max_epochs=4'))
    run_forked('train.py', *arguments, '--work-dir', tmp_path / 'whole', cwd=tmp_path)
    kill_and_resume(*arguments, work_dir=tmp_path / 'killed', cwd=tmp_path, last='epoch_4.pth')
    compare_losses(tmp_path / 'whole', tmp_path / 'killed', 12)


def test_two_processes_in_bfloat16(data, tmp_path):
    options = settings(data, 'train_cfg.max_epochs=2', 'train_dataloader.batch_size=2')
    losses = train_on_two_processes_in_bfloat16(CONFIG, *options, cwd=tmp_path)
    assert list(losses) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize('config', ['solids_unireplknet_demo', 'solids_pointnet_demo'])
def test_demo_configs_run_on_demo_data(call, tmp_path, monkeypatch, config):
    """And the peer, whose backbone is none of the suite's, through the same commands."""
    monkeypatch.chdir(tmp_path)
    path = ROOT / 'configs' / 'demo' / f'{config}.py'
    call('train', path, '--demo-data', '--work-dir', tmp_path / 'work')
    (scalars,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    assert {'accuracy/OA', 'accuracy/mAcc'} <= json.loads(
        scalars.read_text().splitlines()[-1]
    ).keys()
    assert list((tmp_path / 'work').glob('best_accuracy_OA_epoch_1.pth'))
    printed = call('get_flops', path)
    assert 'FLOPs' in printed


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_random_weights(CONFIG, tmp_path_factory.mktemp('weights') / 'points.pth')


def test_deploy_form_has_the_same_scores(call, data, checkpoint, tmp_path, monkeypatch):
    """On eight turns of each cloud."""
    monkeypatch.chdir(tmp_path)
    root = ('--cfg-options', f'test_dataloader.dataset.data_root={data}')
    samples, metrics = in_both_forms(call, CONFIG, checkpoint, *root, folder=tmp_path)
    assert len(samples) == 4 and {'accuracy/OA', 'accuracy/mAcc'} <= metrics.keys()


def test_predictions_of_files(call, checkpoint, tmp_path, monkeypatch):
    """A cloud, a mesh and a broken one; the pictures show the cloud and three maps."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save('cloud.npy', rng.normal(size=(100, 3)))
    (tmp_path / 'mesh.off').write_text('OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n')
    (tmp_path / 'one.xyz').write_text('1 2 3\n')
    broken = np.ones((20, 3))
    broken[3] = np.nan
    np.save('nan.npy', broken)
    printed = call('predict', CONFIG, checkpoint, tmp_path, '--out', tmp_path / 'out', status=1)
    assert 'one.xyz has 1 point(s), a cloud has at least two' in printed
    assert '1 of 20 points are not finite' in printed
    document = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert len(document['predictions']) == 2 and len(document['failures']) == 2
    for record in document['predictions']:
        assert set(record['classes']) <= set(SCAN_CLASSES) and len(record['scores']) == 5
        picture = cv2.imread(str(tmp_path / 'out' / record['picture']))
        assert picture.shape[1] > 2.5 * picture.shape[0]
        quarters = np.array_split(picture, 4, axis=1)
        assert all(quarter.std() > 5 for quarter in quarters)


def test_an_exported_file_has_the_same_scores(call, checkpoint, tmp_path, monkeypatch):
    """Neighbours, scattering and all: the tool writes nothing that differs from the model."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in 'ab':
        np.save(f'{name}.npy', rng.normal(size=(100, 3)))
    out = tmp_path / 'points.pt2'
    arguments = ('--format', 'torch-export', '--out', out, '--images', tmp_path)
    call('export', CONFIG, checkpoint, *arguments)
    program = torch.export.load(out).module()
    clouds = torch.randn(1, 64, 3)
    shuffled = clouds[:, torch.randperm(64)]
    torch.testing.assert_close(program(clouds), program(shuffled), rtol=1e-3, atol=1e-5)
