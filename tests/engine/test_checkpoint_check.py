"""What MMEngine's runner loads: adapted to the model, checked against it, or refused."""

import logging
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import (
    SMALL_ARCH,
    ToyDetector,
    assert_body_loaded,
    detector_weights,
    published_weights,
    randomise,
    relative_error,
    save,
)
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS
from mmengine.runner import FlexibleRunner, Runner, get_priority
from torch import nn

from unireplknet_mm.engine import SwitchToDeployHook
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.weights import CheckpointError


class Samples(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b'), palette=np.zeros((2, 3)))

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=torch.ones(1))


def build_runner(tmp_path, model, hooks=(), **options) -> Runner:
    loader = dict(batch_size=1, dataset=Samples(), sampler=dict(type='DefaultSampler'))
    return Runner(
        model,
        str(tmp_path / 'work_dir'),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=options.pop('max_epochs', 1)),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=[dict(type='MultiStepLR', milestones=[1])],
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=Evaluator([]),
        custom_hooks=[dict(type='CheckpointCheckHook'), *hooks],
        default_scope='mmengine',
        experiment_name=f'{tmp_path.name}{len(os.listdir(tmp_path))}',
        **options,
    )


def test_a_runner_resumes_its_own_checkpoint(tmp_path):
    torch.manual_seed(0)
    model = ToyDetector(randomise(UniRepLKNet(SMALL_ARCH)))
    runner = build_runner(tmp_path, model, [dict(type='EMAHook')], load_from=None)
    runner.train()
    path = tmp_path / 'work_dir' / 'epoch_1.pth'
    assert path.is_file()

    again = ToyDetector(UniRepLKNet(SMALL_ARCH))
    runner = build_runner(
        tmp_path, again, [dict(type='EMAHook')], load_from=str(path), resume=True, max_epochs=2
    )
    runner.train()
    assert runner.epoch == 2
    assert_body_loaded(again.backbone, model.backbone.state_dict())
    losses = runner.message_hub.get_scalar('train/loss')
    assert len(losses.data[0]) == 4  # of both runs, so that the log history was read


def test_training_starts_from_a_raw_file_and_from_a_detector_of_other_classes(tmp_path):
    """Heads of another shape are left alone, as fine-tuning needs it."""
    for name, weights in (('raw', published_weights('a')), ('det', detector_weights('a'))):
        path = save(tmp_path / f'{name}.pth', weights)
        model = ToyDetector(UniRepLKNet('a', frozen_stages=4, norm_eval=True), num_classes=5)
        head = model.bbox_head.fc.weight.shape
        runner = build_runner(tmp_path, model, [dict(type='EMAHook')], load_from=str(path))
        runner.train()
        assert_body_loaded(model.backbone, published_weights('a'))
        assert model.bbox_head.fc.weight.shape == head


def test_testing_refuses_weights_without_a_head_and_of_another_arch(tmp_path):
    path = save(tmp_path / 'raw.pth', published_weights('a'))
    runner = build_runner(tmp_path, ToyDetector(UniRepLKNet('a')), load_from=str(path))
    with pytest.raises(CheckpointError, match='for the backbone only, none for neck, bbox_head of'):
        runner.test()
    path = save(tmp_path / 'det.pth', dict(state_dict=detector_weights('n')))
    runner = build_runner(tmp_path, ToyDetector(UniRepLKNet('a')), load_from=str(path))
    with pytest.raises(CheckpointError, match=r'UniRepLKNet-N .* the model is UniRepLKNet-A'):
        runner.test()
    path = save(tmp_path / 'det.pth', dict(state_dict=detector_weights('a')))
    model = ToyDetector(UniRepLKNet('a'))
    build_runner(tmp_path, model, load_from=str(path)).test()
    assert torch.equal(model.bbox_head.fc.weight, torch.ones(3, 2))


def test_the_hook_runs_before_those_that_read_the_state_dict():
    check, average = (HOOKS.build(dict(type=name)) for name in ('CheckpointCheckHook', 'EMAHook'))
    assert get_priority(check.priority) < get_priority(average.priority)


def test_the_hook_leaves_the_shards_of_a_flexible_runner_alone(tmp_path):
    runner = FlexibleRunner(
        ToyDetector(UniRepLKNet(SMALL_ARCH)),
        work_dir=str(tmp_path),
        experiment_name=tmp_path.name,
        custom_hooks=[dict(type='CheckpointCheckHook')],
    )
    checkpoint = dict(meta=dict(epoch=1))
    runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    assert checkpoint == dict(meta=dict(epoch=1))


def test_testing_the_deploy_structure_of_averaged_weights():
    """An EMAHook swaps the model's tensors with the averages': both must have the same structure."""
    model = nn.Sequential(randomise(UniRepLKNet(SMALL_ARCH))).eval()
    average = EMAHook(update_buffers=True)
    runner = SimpleNamespace(model=model, hooks=[average], logger=logging.getLogger('test'))
    average.before_run(runner)
    randomise(average.ema_model.module, seed=1)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = average.ema_model.module(x)
        SwitchToDeployHook().before_test(runner)
        average.before_test_epoch(runner)
        actual = model(x)
    assert all(relative_error(a, e) < 2e-5 for a, e in zip(actual, expected, strict=True))
