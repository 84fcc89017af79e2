"""Videos through the tools: trained by two processes, killed and resumed, tested in every form, predicted."""

import json
import pickle
import re

import cv2
import pytest
import torch
from helpers import randomise
from mmengine.config import Config
from mmengine.registry import MODELS
from tool_runs import CONFIGS, read_losses, read_scores, run_and_kill, run_forked

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
    (expected,) = read_losses(folder / 'whole')
    assert list(expected) == list(range(1, 13)) and len(set(expected.values())) == 12
    killed = folder / 'killed'
    run_and_kill(
        'train.py',
        *arguments,
        '--work-dir',
        killed,
        cwd=folder,
        when=killed / 'last_checkpoint',
        log=folder / 'log',
    )
    assert not (killed / 'epoch_4.pth').exists()
    run_forked('train.py', *arguments, '--work-dir', killed, '--resume', cwd=folder)
    before, after = read_losses(killed)
    assert 0 < len(before) < 12 and 0 < len(after) < 12
    assert before == {step: expected[step] for step in before}
    assert after == {step: expected[step] for step in range(min(after), 13)}


def test_the_broken_video_is_reported(trained):
    log = trained[2]
    assert '1 of the 6 videos could not be read: ' in log
    assert 'up/000003.mp4' in log


def test_two_processes_in_bfloat16(trained, data, tmp_path):
    log = run_forked(
        'train.py',
        CONFIG,
        *settings(data, 'train_cfg.max_epochs=2', 'train_dataloader.batch_size=2'),
        '--amp',
        '--work-dir',
        tmp_path / 'work',
        cwd=tmp_path,
        ranks=2,
    )
    assert 'GPU number: 2' in log and 'CpuAmpOptimWrapper' in log
    (losses,) = read_losses(tmp_path / 'work')
    assert list(losses) == [1, 2, 3, 4, 5, 6]  # 3 videos a process, twice, in batches of 2
    assert all(0 < loss < 20 for loss in losses.values())


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
    """Weights far from their neutral values, for which a wrong folding shows."""
    cfg = Config.fromfile(CONFIG)
    import unireplknet_mm.modalities.video  # noqa: F401

    with torch.no_grad():
        model = randomise(MODELS.build(dict(cfg.model, _scope_='mmpretrain')))
    path = tmp_path_factory.mktemp('weights') / 'video.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


def test_deploy_form_has_the_same_scores_and_predict_those_of_testing(
    call, data, checkpoint, tmp_path, monkeypatch
):
    """On five clips × three crops a video."""
    monkeypatch.chdir(tmp_path)
    root = ['--cfg-options', f'test_dataloader.dataset.data_root={data}']
    scores = {}
    for form, options in {'training': [], 'deploy': ['--deploy']}.items():
        out = tmp_path / f'{form}.pkl'
        call(
            'test', CONFIG, checkpoint, *options, '--work-dir', tmp_path / form, '--out', out, *root
        )
        with out.open('rb') as file:
            samples = pickle.load(file)
        scores[form] = {sample['video_path']: sample['pred_score'] for sample in samples}
        assert 'accuracy/top1' in read_scores(tmp_path / form)
    assert len(scores['training']) == 2
    for path, score in scores['training'].items():
        torch.testing.assert_close(scores['deploy'][path], score, rtol=1e-3, atol=1e-5)
    printed = call('predict', CONFIG, checkpoint, *scores['training'], '--out', tmp_path / 'out')
    assert len(printed.strip().splitlines()) >= 2
    records = json.loads((tmp_path / 'out' / 'predictions.json').read_text())['predictions']
    for record, score in zip(records, scores['training'].values(), strict=True):
        assert record['scores'] == pytest.approx(score.topk(5).values.tolist(), rel=1e-4)
    pictures = sorted((tmp_path / 'out').rglob('*.png'))
    assert len(pictures) == 2
    assert cv2.imread(str(pictures[0])).shape[1] == 320
