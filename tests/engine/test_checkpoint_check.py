"""What MMEngine's runner loads: adapted to the model, checked against it, or refused."""

import logging
import os
from pathlib import Path
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
from mmengine.model import BaseTTAModel
from mmengine.registry import HOOKS
from mmengine.runner import FlexibleRunner, Runner, get_priority
from torch import nn

from unireplknet_mm.engine import SwitchToDeployHook
from unireplknet_mm.engine.loading import load_for_test
from unireplknet_mm.models import FoldableRepLKNet, LargeKernelMobileNetV2, UniRepLKNet
from unireplknet_mm.models.whole_model import holds_deploy_form, switch_to_deploy
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


def log_of(runner: Runner) -> list[str]:
    lines = [path.read_text() for path in sorted(Path(runner.log_dir).glob('*.log'))]
    return ''.join(lines).splitlines()


def test_a_table_says_what_was_loaded(tmp_path):
    weights = detector_weights('a')
    del weights['backbone.norm2.weight']
    weights['rpn_head.conv.weight'] = torch.ones(1)
    path = save(tmp_path / 'det.pth', dict(state_dict=weights))
    model = ToyDetector(UniRepLKNet('a', frozen_stages=4, norm_eval=True), num_classes=5)
    runner = build_runner(tmp_path, model, [dict(type='EMAHook')], load_from=str(path))
    runner.train()
    log = log_of(runner)
    start = next(i for i, line in enumerate(log) if 'Weights of the checkpoint' in line)
    table = log[start : start + 9]
    count = sum(not n.endswith('num_batches_tracked') for n in model.backbone.state_dict())
    assert [row.split() for row in table[1:6]] == [
        ['part', 'loaded', 'missing', 'other', 'shape', 'not', 'used'],
        ['backbone', str(count - 1), '1', '0', '0'],
        ['neck', '1', '0', '0', '0'],
        ['bbox_head', '0', '1', '1', '0'],
        ['rpn_head', '0', '0', '0', '1'],
    ]
    assert table[6:] == [
        'Not in the file, initialised anew: backbone.norm2.weight, bbox_head.fc.bias.',
        'Of another shape, initialised anew: bbox_head.fc.weight (3, 2) in the file, (5, 2) in the model.',
        'In the file, not in the model: rpn_head.conv.weight.',
    ]
    assert not any('do not match exactly' in line for line in log)


def test_nothing_is_said_where_everything_fits(tmp_path):
    model = ToyDetector(randomise(UniRepLKNet(SMALL_ARCH)))
    path = save(tmp_path / 'x.pth', dict(state_dict=model.state_dict()))
    other = ToyDetector(UniRepLKNet(SMALL_ARCH))
    runner = build_runner(tmp_path, other, load_from=str(path))
    runner.test()
    assert_body_loaded(other.backbone, model.backbone.state_dict())
    log = log_of(runner)
    assert any('Load checkpoint from' in line for line in log)
    assert not any('Weights of the checkpoint' in line for line in log)


def test_a_test_refuses_a_head_of_other_classes(tmp_path):
    weights = ToyDetector(UniRepLKNet(SMALL_ARCH), num_classes=80).state_dict()
    path = save(tmp_path / 'x.pth', dict(state_dict=weights))
    runner = build_runner(tmp_path, ToyDetector(UniRepLKNet(SMALL_ARCH)), load_from=str(path))
    with pytest.raises(CheckpointError) as info:
        runner.test()
    assert str(info.value) == (
        f'checkpoint {path}: weights have another shape: bbox_head.fc.weight (80, 2) in the file, (3, 2) in '
        'the model, bbox_head.fc.bias (80,) in the file, (3,) in the model.\n'
        'Test with the config that it was trained with, or set num_classes of the heads to its number of '
        'classes. To fine-tune it on other classes, train with load_from.'
    )


def test_former_names_count_as_loaded(tmp_path, capsys):
    model = RenamingDetector(randomise(UniRepLKNet(SMALL_ARCH)))
    weights = {n.removeprefix('bbox_'): value for n, value in model.state_dict().items()}
    del weights['head.fc.bias']
    path = save(tmp_path / 'x.pth', dict(state_dict=weights))
    again = RenamingDetector(UniRepLKNet(SMALL_ARCH))
    runner = build_runner(tmp_path, again, load_from=str(path))
    runner.test()
    assert torch.equal(again.bbox_head.fc.weight, model.bbox_head.fc.weight)
    last = 'Not in the file, initialised anew: bbox_head.fc.bias.'
    assert last in log_of(runner)
    save(path, dict(state_dict=weights | {'head.fc.bias': torch.ones(9)}))
    build_runner(tmp_path, again, load_from=str(path)).test()
    assert 'size mismatch for bbox_head.fc.bias' in capsys.readouterr().out  # MMEngine prints it


def test_resuming_refuses_the_checkpoint_of_another_model(tmp_path):
    other = ToyDetector(UniRepLKNet(SMALL_ARCH), num_classes=5)
    other.neck = nn.Sequential(nn.Linear(2, 2))
    build_runner(tmp_path, other).train()
    path = tmp_path / 'work_dir' / 'epoch_1.pth'
    model = ToyDetector(UniRepLKNet(SMALL_ARCH))
    runner = build_runner(tmp_path, model, load_from=str(path), resume=True, max_epochs=2)
    with pytest.raises(CheckpointError) as info:
        runner.train()
    assert str(info.value) == (
        f'checkpoint {path}: it is of another model than the training that is to go on: 1 missing '
        '(neck.conv.weight); 2 surplus (neck.0.weight, neck.0.bias); 2 of another shape '
        '(bbox_head.fc.weight (5, 2) instead of (3, 2), bbox_head.fc.bias (5,) instead of (3,)).\n'
        'To start a new training from its weights, set load_from instead of resuming.'
    )


class RenamingDetector(ToyDetector):
    """Like parts of the toolboxes, it takes the weights of an earlier version by their names then."""

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        for name in [name for name in state_dict if name.startswith(f'{prefix}head.')]:
            state_dict[f'{prefix}bbox_{name.removeprefix(prefix)}'] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@pytest.mark.parametrize('lost', [None, 'head.fc.bias'])
def test_resuming_takes_the_names_of_an_earlier_version(tmp_path, lost):
    torch.manual_seed(0)
    model = RenamingDetector(randomise(UniRepLKNet(SMALL_ARCH)))
    build_runner(tmp_path, model).train()
    path = tmp_path / 'work_dir' / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    weights = checkpoint['state_dict']
    for name in [name for name in weights if name.startswith('bbox_')]:
        weights[name.removeprefix('bbox_')] = weights.pop(name)
    if lost:
        del weights[lost]
    torch.save(checkpoint, path)

    again = RenamingDetector(UniRepLKNet(SMALL_ARCH))
    runner = build_runner(tmp_path, again, load_from=str(path), resume=True, max_epochs=2)
    if lost:
        with pytest.raises(CheckpointError, match='it is of another model'):
            runner.train()
        return
    assert (
        runner.train_loop.max_epochs == 2
    )  # which builds it: a runner that does not train is not asked
    runner.load_or_resume()
    assert runner.epoch == 1
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@pytest.mark.parametrize('more', [dict(), dict(meta=None), dict(meta=dict(epoch=1))])
def test_resuming_refuses_weights_alone(tmp_path, more):
    model = ToyDetector(UniRepLKNet(SMALL_ARCH))
    path = save(tmp_path / 'x.pth', dict(state_dict=model.state_dict(), **more))
    runner = build_runner(tmp_path, model, load_from=str(path), resume=True)
    with pytest.raises(CheckpointError, match=r'how far a training was \(meta.epoch, meta.iter\)'):
        runner.train()


def test_testing_refuses_weights_without_a_head_and_of_another_arch(tmp_path):
    path = save(tmp_path / 'raw.pth', published_weights('a'))
    runner = build_runner(tmp_path, ToyDetector(UniRepLKNet('a')), load_from=str(path))
    with pytest.raises(CheckpointError) as info:
        runner.test()
    assert str(info.value) == (
        f'checkpoint {path}: there are weights for the backbone only, none for neck, bbox_head of the '
        'ToyDetector: test a trained one; pretrained weights belong in the init_cfg of the backbone'
    )
    path = save(tmp_path / 'det.pth', dict(state_dict=detector_weights('n')))
    runner = build_runner(tmp_path, ToyDetector(UniRepLKNet('a')), load_from=str(path))
    with pytest.raises(CheckpointError) as info:
        runner.test()
    assert str(info.value) == (
        f'checkpoint {path}: the weights are of UniRepLKNet-N (depths 2 2 8 2, channels 80 160 320 640), '
        'the model is UniRepLKNet-A (depths 2 2 6 2, channels 40 80 160 320): set `arch` of the backbone, '
        'or take other weights'
    )
    path = save(tmp_path / 'det.pth', dict(state_dict=detector_weights('a')))
    model = ToyDetector(UniRepLKNet('a'))
    build_runner(tmp_path, model, load_from=str(path)).test()
    assert torch.equal(model.bbox_head.fc.weight, torch.ones(3, 2))


def test_testing_refuses_a_part_without_weights_behind_any_backbone():
    """But for heads that only training uses; the names are those that DistributedDataParallel gives."""
    names = ('backbone', 'auxiliary_head', 'decode_head')
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in names})
    weights = {
        'module.backbone.weight': torch.ones(2, 2),
        'module.decode_head.weight': torch.full((2, 2), 3.0),
    }
    load_for_test(model, dict(state_dict=weights))
    assert torch.equal(model['backbone'].weight, torch.ones(2, 2))
    assert torch.equal(model['decode_head'].weight, torch.full((2, 2), 3.0))
    del weights['module.decode_head.weight']
    with pytest.raises(CheckpointError) as info:
        load_for_test(model, dict(state_dict=weights))
    assert str(info.value) == (
        'there are no weights for decode_head of the ModuleDict, whose results would be random.\n'
        'Test with the config that it was trained with.'
    )


class Augmented(BaseTTAModel):
    """Test-time augmentation by one view."""

    def test_step(self, data):
        return self.module.test_step(data)

    def merge_preds(self, data_samples_list):
        return data_samples_list


@pytest.mark.parametrize('wrap', [lambda model: model, Augmented])
def test_a_test_takes_the_form_of_the_file(tmp_path, wrap):
    detector = ToyDetector(randomise(UniRepLKNet(SMALL_ARCH))).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = detector.backbone(x)
    switch_to_deploy(detector)
    path = save(tmp_path / 'deploy.pth', dict(state_dict=detector.state_dict()))

    model = ToyDetector(UniRepLKNet(SMALL_ARCH))
    hooks = [dict(type='EMAHook'), dict(type='SwitchToDeployHook')]
    runner = build_runner(tmp_path, wrap(model), hooks[:1], load_from=str(path))
    runner.test()
    (average,) = (hook for hook in runner.hooks if isinstance(hook, EMAHook))
    averaged = average.ema_model.module
    averaged = averaged.module if wrap is Augmented else averaged
    for tested in (model, averaged):
        assert tested.backbone.deploy
        assert_body_loaded(tested.backbone, detector.backbone.state_dict())
    with torch.no_grad():
        actual = model.eval().backbone(x)
    assert all(relative_error(a, e) < 2e-5 for a, e in zip(actual, expected, strict=True))

    # --deploy, where there is nothing left to fold
    model = ToyDetector(UniRepLKNet(SMALL_ARCH))
    build_runner(tmp_path, wrap(model), hooks, load_from=str(path)).test()
    assert_body_loaded(model.backbone, detector.backbone.state_dict())


STUDIED = {
    'mobilenet': lambda: LargeKernelMobileNetV2(
        widen_factor=0.125, kernel_sizes=7, small_kernel_size=3
    ),
    'replknet': lambda: FoldableRepLKNet((8, 8, 8, 8), (1, 1, 1, 1), (7, 7, 7, 7)),
}


@pytest.mark.parametrize('network', STUDIED)
def test_a_test_takes_the_form_of_the_file_with_the_networks_of_the_studies(tmp_path, network):
    build = STUDIED[network]
    detector = ToyDetector(randomise(build())).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = detector.backbone(x)
    trained = {name: value.clone() for name, value in detector.state_dict().items()}
    assert not holds_deploy_form(trained, detector)
    switch_to_deploy(detector)
    assert holds_deploy_form(detector.state_dict(), detector)
    path = save(tmp_path / 'deploy.pth', dict(state_dict=detector.state_dict()))
    model = ToyDetector(build())
    build_runner(tmp_path, model, load_from=str(path)).test()
    assert model.backbone.deploy
    with torch.no_grad():
        actual = model.eval().backbone(x)
    assert all(relative_error(a, e) < 2e-5 for a, e in zip(actual, expected, strict=True))
    runner = build_runner(tmp_path, ToyDetector(build()), load_from=str(path))
    with pytest.raises(CheckpointError, match='the weights are re-parameterized'):
        runner.train()


def test_a_training_refuses_the_other_form(tmp_path):
    detector = ToyDetector(UniRepLKNet(SMALL_ARCH, deploy=True))
    path = save(tmp_path / 'deploy.pth', dict(state_dict=detector.state_dict()))
    model = ToyDetector(UniRepLKNet(SMALL_ARCH))
    runner = build_runner(tmp_path, model, load_from=str(path))
    with pytest.raises(CheckpointError) as info:
        runner.train()
    assert str(info.value) == (
        f'checkpoint {path}: the weights are re-parameterized (deploy form) and the backbone is in its '
        'training form: build it with deploy=True, or load the weights from training'
    )
    assert not model.backbone.deploy


def test_what_a_users_own_code_has_read_has_no_name(tmp_path):
    runner = build_runner(tmp_path, ToyDetector(UniRepLKNet(SMALL_ARCH)))
    with pytest.raises(CheckpointError) as info:
        runner.load_checkpoint(str(save(tmp_path / 'x.pth', dict(epoch=1))))
    assert str(info.value) == 'no weights in the checkpoint: it holds epoch'


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
