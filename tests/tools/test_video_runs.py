"""Videos through the tools: trained by two processes, killed and resumed, tested in every form, predicted."""

import json
import re

import cv2
import pytest
from helpers import save_random_weights
from predictions import in_both_forms
from tool_runs import (
    CONFIGS,
    compare_losses,
    kill_and_resume,
    run_forked,
    train_on_two_processes_in_bfloat16,
)

from unireplknet_mm.datasets.demo import make_demo_data

CONFIG = CONFIGS / 'video_small.py'
# Larger steps than the warm-up's first ones, so that weights and optimizer state matter.
OPTIONS = (
    'default_hooks.logger.interval=1',
    'log_processor.window_size=1',
    'param_scheduler.0.start_factor=0.5',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
    'optim_wrapper.optimizer.lr=0.02',
    'optim_wrapper.accumulative_counts=1',
    'model.backbone.layer_scale_init_value=0.5',
)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Six videos, of which one is cut off at its very beginning."""
    root = tmp_path_factory.mktemp('data') / 'kinetics'
    make_demo_data('kinetics', root, 6, 2, size=(48, 40), frames=12)
    path = root / 'train' / 'up' / '000003.mp4'
    path.write_bytes(path.read_bytes()[:20])
    return root


def settings(data, *more) -> list[str]:
    roots = [f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')]
    share = 'train_dataloader.dataset.max_unreadable=0.5'
    return ['--cfg-options', *OPTIONS, *roots, share, *more]


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
    """The work dir and the log of four epochs of three iterations; killed and resumed, it has another."""
    folder = tmp_path_factory.mktemp('runs')
    arguments = (CONFIG, *settings(data, 'train_cfg.max_epochs=4'))
    log = run_forked('train.py', *arguments, '--work-dir', folder / 'whole', cwd=folder)
    return folder, arguments, log


def test_a_killed_training_goes_on_with_the_same_losses(trained):
    """With worker processes, repeated augmentation, and a video that another one replaces."""
    folder, arguments, _ = trained
    kill_and_resume(*arguments, work_dir=folder / 'killed', cwd=folder, last='epoch_4.pth')
    compare_losses(folder / 'whole', folder / 'killed', 12)


def test_the_broken_video_is_reported(trained):
    log = trained[2]
    assert '1 of the 6 videos could not be read: ' in log
    assert 'up/000003.mp4' in log


def test_two_processes_in_bfloat16(data, tmp_path):
    options = settings(data, 'train_cfg.max_epochs=2', 'train_dataloader.batch_size=2')
    losses = train_on_two_processes_in_bfloat16(CONFIG, *options, cwd=tmp_path)
    assert list(losses) == [1, 2, 3, 4, 5, 6]  # 3 videos a process, twice, in batches of 2


def test_too_many_broken_videos_end_a_training(data, tmp_path):
    options = settings(data, 'train_cfg.max_epochs=2')
    options = [option.replace('max_unreadable=0.5', 'max_unreadable=0.1') for option in options]
    log = run_forked(
        'train.py', CONFIG, *options, '--work-dir', tmp_path / 'work', cwd=tmp_path, status=1
    )
    *_, last = log.strip().splitlines()
    pattern = r'error: 1 of the \d videos seen so far cannot be read, more than max_unreadable=0.1'
    assert re.match(pattern, last)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_random_weights(CONFIG, tmp_path_factory.mktemp('weights') / 'video.pth')


def test_deploy_form_has_the_same_scores_and_predict_those_of_testing(
    call, data, checkpoint, tmp_path, monkeypatch
):
    """On five clips × three crops a video."""
    monkeypatch.chdir(tmp_path)
    root = ('--cfg-options', f'test_dataloader.dataset.data_root={data}')
    samples, metrics = in_both_forms(call, CONFIG, checkpoint, *root, folder=tmp_path)
    assert len(samples) == 2 and 'accuracy/top1' in metrics
    scores = {sample['video_path']: sample['pred_score'] for sample in samples}
    printed = call('predict', CONFIG, checkpoint, *scores, '--out', tmp_path / 'out')
    assert len(printed.strip().splitlines()) >= 2
    records = json.loads((tmp_path / 'out' / 'predictions.json').read_text())['predictions']
    for record, score in zip(records, scores.values(), strict=True):
        assert record['scores'] == pytest.approx(score.topk(5).values.tolist(), rel=1e-4)
    pictures = sorted((tmp_path / 'out').rglob('*.png'))
    assert len(pictures) == 2
    assert cv2.imread(str(pictures[0])).shape[1] == 320
