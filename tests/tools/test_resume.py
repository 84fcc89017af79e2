"""A training that is killed and resumed goes on as the uninterrupted one, to the last bit on CPU."""

import pytest
import torch
from tool_runs import CONFIGS, compare_losses, kill_and_resume, run_forked

from unireplknet_mm.datasets.demo import make_demo_data

# Larger steps than the warm-up's first ones, so that weights and optimizer state matter.
COMMON = (
    'default_hooks.logger.interval=1',
    'log_processor.window_size=1',
    'param_scheduler.0.start_factor=0.5',
    'optim_wrapper.optimizer.lr=0.02',
    'model.backbone.drop_path_rate=0.5',
    'model.backbone.layer_scale_init_value=0.5',
)


def options(data_root, *more):
    roots = [f'{split}_dataloader.dataset.data_root={data_root}' for split in ('train', 'val')]
    return ['--cfg-options', *COMMON, *roots, *more]


@pytest.fixture(scope='module')
def ade20k(tmp_path_factory):
    return make_demo_data('ade20k', tmp_path_factory.mktemp('data') / 'ade', 10, 2)


def test_iteration_based_training_on_two_processes(tmp_path, ade20k):
    """Checkpoints within an epoch of 10 images and between two updates; workers that persist."""
    arguments = (
        CONFIGS / 'seg_small.py',
        *options(
            ade20k,
            'train_cfg.max_iters=10',
            'optim_wrapper.accumulative_counts=4',
            'train_cfg.val_interval=100',
            'default_hooks.checkpoint.interval=3',
            'default_hooks.checkpoint.max_keep_ckpts=1',
        ),
    )
    work_dir, killed_dir = tmp_path / 'whole', tmp_path / 'killed'
    run_forked('train.py', *arguments, '--work-dir', work_dir, cwd=tmp_path, ranks=2)
    log = kill_and_resume(
        *arguments, work_dir=killed_dir, cwd=tmp_path, last='iter_10.pth', ranks=2
    )
    assert 'resumed epoch: 0, iter: ' in log
    assert 'The gradients that wait for the next update were in the checkpoint' in log
    compare_losses(work_dir, killed_dir, 10)
    states = [
        torch.load(folder / 'iter_10.pth', weights_only=False)['state_dict']
        for folder in (work_dir, killed_dir)
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_epoch_based_training(tmp_path):
    """The recipe's update step, of 4 iterations, is longer than the epoch of 3."""
    data = make_demo_data('imagenet', tmp_path / 'imagenet', 12, 4)
    arguments = (
        CONFIGS / 'cls_small.py',
        *options(
            data,
            'train_cfg.max_epochs=4',
            'param_scheduler.0.end=1',
            'param_scheduler.1.begin=1',
        ),
    )
    work_dir, killed_dir = tmp_path / 'whole', tmp_path / 'killed'
    run_forked('train.py', *arguments, '--work-dir', work_dir, cwd=tmp_path)
    log = kill_and_resume(*arguments, work_dir=killed_dir, cwd=tmp_path, last='epoch_4.pth')
    assert 'resumed epoch: ' in log
    assert 'Gradients are accumulated over the 3 iterations of an epoch instead of 4' in log
    compare_losses(work_dir, killed_dir, 12)
