"""What a training on demo data says at its end."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import load_config
from mmengine.config import Config

from unireplknet_mm import launch
from unireplknet_mm.launch import demo_run

COCO = dict(
    type='CocoDataset',
    data_root='data/coco/',
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
)


@pytest.fixture(autouse=True)
def nothing_is_swapped(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_run, 'swap_data', lambda cfg: cfg)


def finished_runner(work_dir, **scalars) -> SimpleNamespace:
    return SimpleNamespace(
        cfg=SimpleNamespace(filename='/somewhere/det.py'),
        iter=2,
        train_dataloader=SimpleNamespace(dataset=range(4)),
        val_loop=None if scalars.get('no_validation') else object(),
        message_hub=SimpleNamespace(log_scalars=dict({'train/loss': 1, 'val/time': 1}, **scalars)),
        work_dir=str(work_dir),
        log_dir=f'{work_dir}/20261120_101500',
        logger=logging.getLogger('test_demo_run'),
    )


def report(caplog, runner, first_iteration=0) -> list[str]:
    with caplog.at_level(logging.INFO):
        launch.report_demo_run(runner, 'Get the data.', first_iteration)
    return caplog.records[-1].getMessage().splitlines()


def test_report(caplog, tmp_path):
    (tmp_path / 'last_checkpoint').write_text(f'{tmp_path}/epoch_1.pth')
    assert report(caplog, finished_runner(tmp_path, **{'val/coco/bbox_mAP': 0.0})) == [
        'The demo run is finished.',
        'Shown: det.py works on this machine: reading and augmenting data, 2 training iterations, '
        'a checkpoint, an evaluation.',
        'The model has seen 4 generated samples only: the scores say nothing about it.',
        f'Output: {tmp_path} (log: 20261120_101500/, checkpoint: epoch_1.pth)',
        'Next: Get the data.',
    ]


def test_report_claims_only_what_has_happened(caplog, tmp_path):
    lines = report(caplog, finished_runner(tmp_path, no_validation=True))
    assert lines[1].endswith(': reading and augmenting data, 2 training iterations.')
    assert lines[2] == 'The model has seen 4 generated samples only.'
    assert lines[3] == f'Output: {tmp_path} (log: 20261120_101500/)'


def test_report_of_a_resumed_run(caplog, tmp_path):
    torch.save(dict(meta=dict(iter=1)), tmp_path / 'iter_1.pth')
    cfg = Config(dict(load_from=str(tmp_path / 'iter_1.pth')))
    assert launch.resumed_iteration(cfg) == 0
    cfg.resume = True
    assert launch.resumed_iteration(cfg) == 1
    assert ' 1 training iterations' in report(caplog, finished_runner(tmp_path), 1)[1]
    assert report(caplog, finished_runner(tmp_path), 2) == [
        'The demo run had been finished before: nothing was left to train, and nothing was shown.',
        'Without --resume it starts anew.',
    ]


def test_report_explains_missing_scores(caplog, tmp_path):
    lines = report(caplog, finished_runner(tmp_path, **{'val/data_time': 1}))
    assert lines[2].endswith(' There was nothing to score yet, which is no error here.')


def test_next_step_is_to_get_the_data(tmp_path):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=COCO))))
    assert launch.use_demo_data(cfg).splitlines() == [
        'COCO 2017 is at https://cocodataset.org/#download; expected are '
        'data/coco/annotations/instances_{train,val}2017.json and '
        'data/coco/{train,val}2017/*.jpg',
        'A copy elsewhere can be linked: ln -s /path/to/it data/coco',
        'Then run the same command without --demo-data.',
        'For data of your own, see docs/custom_data.md.',
    ]


def test_next_step_where_the_data_are_there(tmp_path):
    (tmp_path / 'data/coco/annotations').mkdir(parents=True)
    (tmp_path / 'data/coco/train2017').mkdir()
    (tmp_path / 'data/coco' / COCO['ann_file']).touch()
    next_step = launch.use_demo_data(Config(dict(train_dataloader=dict(dataset=COCO))))
    assert next_step.startswith(
        'The data that the config asks for are there: run the same command without --demo-data.'
    )


def test_next_step_for_data_of_ones_own(tmp_path):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='OwnDataset', data_root='own'))))
    assert launch.use_demo_data(cfg).splitlines()[0] == (
        'Set data_root, ann_file and data_prefix of train_dataloader.dataset in the config.'
    )


def test_options_have_the_last_word(monkeypatch):
    def shorten(cfg):
        cfg.train_cfg = dict(max_epochs=1)

    monkeypatch.setattr(demo_run, 'swap_data', shorten)
    cfg = Config(dict(train_cfg=dict(max_epochs=36)))
    launch.use_demo_data(cfg, ['train_cfg.max_epochs=3'])
    assert cfg.train_cfg.max_epochs == 3


@pytest.mark.parametrize(
    ('name', 'device', 'is_warned'),
    [
        ('video/unireplknet_s_k400', 'cpu', True),
        ('video/unireplknet_s_k400', 'cuda', False),
        ('demo/motions_unireplknet_demo', 'cpu', False),
        ('cls/unireplknet_a_in1k', 'cpu', False),
    ],
)
def test_a_run_that_takes_long_on_a_cpu_names_a_small_config(
    name, device, is_warned, log, monkeypatch
):
    monkeypatch.setattr(demo_run, 'get_device', lambda: device)
    configs = Path(__file__).parents[2] / 'configs'
    launch.use_demo_data(load_config(configs / f'{name}.py'))
    small = [line for line in log if 'configs/demo/motions_unireplknet_demo.py shows' in line]
    assert len(small) == is_warned
