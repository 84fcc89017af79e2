"""A NaN or infinite loss ends a training before its update, and says where it came from."""

import os
import sys

import pytest
import torch
from helpers import SMALL_ARCH, randomise
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from tool_runs import PROCESSES, ROOT
from torch import nn

from unireplknet_mm.engine.non_finite import NonFiniteLossError, NonFiniteLossHook, files_of
from unireplknet_mm.models import UniRepLKNet

ADVICE = (
    'Look at these files, lower the learning rate, clip gradients (optim_wrapper.clip_grad) or take '
    'bfloat16 instead of float16. --resume goes on from the last checkpoint.'
)
BAD = 'bad.jpg'


class Exponential(nn.Module):
    def forward(self, x):
        return x.exp()


class Net(BaseModel):
    """Overflows where an input is large."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.1), Exponential(), nn.Linear(4, 1))
        for layer in (self.body[0], self.body[3]):  # of one sign: infinity minus infinity is NaN
            nn.init.constant_(layer.weight, 0.1)

    def forward(self, inputs, data_samples=None, mode='loss'):
        inputs = torch.stack([*inputs])
        output = self.body(inputs)
        return dict(loss_a=100 * (output - 1).square().mean())


class LogNet(Net):
    """All layers are finite, one loss is not."""

    def forward(self, inputs, data_samples=None, mode='loss'):
        inputs = torch.stack([*inputs])
        losses = super().forward(inputs.clamp(max=1))
        return losses | dict(loss_b=[(1000 - inputs.amax(1)).clamp(min=0).log().mean()])


class DropNet(BaseModel):
    """Overflows where its one value is not dropped."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Dropout(0.5), Exponential())
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=(self.body(inputs[0][:1]) * self.scale).mean())


@HOOKS.register_module()
class WatchHook(Hook):
    """Keeps the weights as each iteration finds them, and what the iterations computed."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.iteration = runner.iter
        self.weights = {k: v.detach().clone() for k, v in runner.model.named_parameters()}

    def before_train(self, runner):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())


@OPTIM_WRAPPERS.register_module()
class OverflowingOptimWrapper(AmpOptimWrapper):
    """AmpOptimWrapper without its autocast, on CPU, with a factor for which all gradients are infinite."""

    def __init__(self, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**127, backoff_factor=2.0**-60)

    optim_context = OptimWrapper.optim_context


def samples(bad_at: int | None = None) -> list[dict]:
    """Twelve samples, of which one is of other values."""
    made = []
    for number in range(12):
        path = BAD if number == bad_at else f'{number}.jpg'
        values = torch.tensor([1e5, 0.0]) if number == bad_at else torch.tensor([0.1 * number, 1.0])
        made.append(dict(inputs=values, data_samples=BaseDataElement(metainfo=dict(img_path=path))))
    return made


def build(
    work_dir, dataset, model=Net, epochs=1, by_epoch=True, hook=True, batch_size=2, **options
) -> Runner:
    options.setdefault('randomness', dict(seed=1))
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=1e-3), **options.pop('optim_wrapper', {}))
    train_cfg = (
        dict(by_epoch=True, max_epochs=epochs)
        if by_epoch
        else dict(by_epoch=False, max_iters=6 * epochs, val_interval=1000)
    )
    return Runner(
        model=dict(type=model),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset,
        ),
        train_cfg=train_cfg,
        optim_wrapper=optim_wrapper,
        default_hooks=dict(non_finite_loss=dict(type='NonFiniteLossHook')) if hook else None,
        custom_hooks=[dict(type='WatchHook')],
        default_scope='mmengine',
        experiment_name=f'non_finite_{os.urandom(4).hex()}',
        log_level='ERROR',
        **options,
    )


def fails(runner: Runner) -> str:
    with pytest.raises(NonFiniteLossError) as info:
        runner.train()
    return str(info.value)


def watched(runner: Runner) -> WatchHook:
    return next(hook for hook in runner.hooks if isinstance(hook, WatchHook))


@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_first_infinite_loss_names_iteration_files_and_layer(tmp_path, by_epoch):
    runner = build(tmp_path, samples(bad_at=5), epochs=2, by_epoch=by_epoch)
    message = fails(runner)
    place = 'iteration 3 (epoch 1)' if by_epoch else 'iteration 3'
    first, second, third = message.splitlines()
    assert first.startswith(
        f'the loss is inf in {place}. The first output that is not finite is that of '
    )
    assert 'body.2 (Exponential), whose input reaches ' in first and first.endswith(' in float32.')
    assert (second, third) == (f'The batch: 4.jpg, {BAD}.', ADVICE)
    watch = watched(runner)
    assert watch.iteration == 2
    for name, parameter in runner.model.named_parameters():
        assert torch.equal(parameter, watch.weights[name]), name  # no update
        assert parameter.isfinite().all()
    assert not list(tmp_path.glob('*.pth'))


def test_a_loss_that_no_layer_made_is_named(tmp_path):
    message = fails(build(tmp_path, samples(bad_at=8), model=LogNet))
    assert message.splitlines()[0] == (
        'the loss is -inf in iteration 5 (epoch 1). Every layer has a finite output; of the losses, loss_b '
        'is not finite.'
    )


def test_broken_weights_and_inputs_are_said_to_be_it(tmp_path):
    runner = build(tmp_path, samples())
    runner.model.body[3].weight.data[0, 0] = torch.nan
    assert 'that of body.3 (Linear), whose weight is not finite.' in fails(runner)
    dataset = samples()
    dataset[0]['inputs'][0] = torch.nan
    message = fails(build(tmp_path, dataset))
    assert 'the loss is nan in iteration 1 (epoch 1). ' in message
    assert 'that of body.0 (Linear), whose input is not finite either.' in message


def test_a_forward_pass_that_cannot_be_repeated(tmp_path, monkeypatch):
    runner = build(tmp_path, samples(bad_at=0))
    run_forward, calls = runner.model._run_forward, []

    def once(*args, **kwargs):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError('only once')
        return run_forward(*args, **kwargs)

    monkeypatch.setattr(runner.model, '_run_forward', once)
    assert 'could not be repeated: RuntimeError: only once.\nThe batch: bad.jpg, 1.jpg' in fails(
        runner
    )


def test_the_same_paths_are_dropped_when_the_forward_pass_is_repeated(tmp_path):
    """With others, the layer would be found in half of the cases."""
    messages = []
    for seed in range(12):
        runner = build(tmp_path, samples(bad_at=0)[:2], model=DropNet, randomness=dict(seed=seed))
        try:
            runner.train()
        except NonFiniteLossError as error:
            messages.append(str(error))
    assert 2 < len(messages) < 12
    assert all('that of body.1 (Exponential)' in message for message in messages)


def test_accumulated_gradients_are_thrown_away(tmp_path):
    runner = build(tmp_path, samples(bad_at=3), optim_wrapper=dict(accumulative_counts=3))
    assert 'the loss is inf in iteration 2 (epoch 1)' in fails(runner)
    runner = build(tmp_path, samples(bad_at=10), optim_wrapper=dict(accumulative_counts=3))
    assert 'the loss is inf in iteration 6 (epoch 1)' in fails(runner)


def test_infinite_gradients_of_a_scaler_are_no_error(tmp_path):
    wrapper = dict(type='OverflowingOptimWrapper')
    runner = build(tmp_path, samples(), optim_wrapper=wrapper)
    runner.train()
    assert runner.optim_wrapper.loss_scaler.get_scale() < 2.0**127  # it met them
    runner = build(tmp_path, samples(bad_at=2), optim_wrapper=wrapper)
    assert 'the loss is inf in iteration 2 (epoch 1)' in fails(runner)


def test_a_training_is_otherwise_as_without(tmp_path):
    results = []
    for hook in (True, False):
        torch.manual_seed(0)
        runner = build(tmp_path, samples(), epochs=2, hook=hook)
        runner.train()
        results.append((watched(runner).losses, runner.model.state_dict()))
        assert 'backward' not in vars(runner.optim_wrapper)
    assert results[0][0] == results[1][0]
    for name, tensor in results[0][1].items():
        assert torch.equal(tensor, results[1][1][name]), name


def test_many_files_go_to_the_log(tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr(
        'unireplknet_mm.engine.non_finite.print_log', lambda text, **_: logged.append(text)
    )
    runner = build(tmp_path, samples(bad_at=5), batch_size=12)
    message = fails(runner)
    assert 'The batch: 0.jpg, 1.jpg, 2.jpg, 3.jpg and 8 more, which the log names.' in message
    assert logged == [
        f'Batch with a loss of inf: {", ".join(f"{i}.jpg" for i in range(5))}, {BAD}, '
        f'{", ".join(f"{i}.jpg" for i in range(6, 12))}'
    ]


def test_files_in_batches_of_every_form():
    element = BaseDataElement(metainfo=dict(img_id=7, img_path='a.png'))
    by_id = BaseDataElement(metainfo=dict(sample_idx=3))
    assert files_of(dict(inputs=[torch.ones(1)], data_samples=[element, by_id])) == [
        'a.png',
        'sample_idx 3',
    ]
    assert files_of([dict(branch=[[element]], other=None)]) == ['a.png']
    assert files_of(torch.ones(2)) == []


def train_in_two_processes(rank: int, store: str, work_dir: str, queue) -> None:
    """Process 1 meets the bad file; both end with the same message."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group(
        'gloo', store=torch.distributed.FileStore(store, 2), rank=rank, world_size=2
    )
    # Every second sample is of process 1: 0 2 4 ... and 1 3 5 ...
    runner = build(
        work_dir,
        samples(bad_at=5),
        launcher='pytorch',
        cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)),
    )
    before = {k: v.detach().clone() for k, v in runner.model.named_parameters()}
    try:
        runner.train()
    except NonFiniteLossError as error:
        finite = all(parameter.isfinite().all() for parameter in runner.model.parameters())
        moved = any(not torch.equal(p, before[k]) for k, p in runner.model.named_parameters())
        queue.put((rank, str(error), runner.iter, finite, moved))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(sys.platform == 'win32', reason='gloo has no FileStore on Windows')
def test_all_processes_end_in_the_same_iteration_with_the_same_message(tmp_path):
    queue = PROCESSES.Queue()
    arguments = str(tmp_path / 'store'), str(tmp_path / 'work'), queue
    processes = [
        PROCESSES.Process(target=train_in_two_processes, args=(rank, *arguments))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]
    found = sorted(queue.get(timeout=20) for _ in processes)
    (_, message, *rest), (_, other_message, *other_rest) = found
    assert message == other_message
    assert (
        rest == other_rest == [1, True, True]
    )  # the second iteration; weights of the first update
    assert message.startswith('the loss is inf in iteration 2 (epoch 1, rank 1). ')
    assert 'that of body.2 (Exponential)' in message
    assert f'The batch: {BAD}, 7.jpg.' in message


def test_all_configs_of_the_suite_have_the_hook():
    configs = [
        path
        for path in (ROOT / 'configs').rglob('*.py')
        if '_base_' not in path.relative_to(ROOT / 'configs').parts
    ]
    assert len(configs) > 20
    for path in configs:
        hooks = Config.fromfile(path).default_hooks
        assert hooks.get('non_finite_loss') == dict(type='NonFiniteLossHook'), path
    assert HOOKS.get('NonFiniteLossHook') is NonFiniteLossHook


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('size', [(384, 128), (128, 384), (97, 33), (33, 17), (416, 65)], ids=str)
def test_odd_sizes_give_finite_outputs_and_gradients(size, dtype):
    """384x128 is what users of other implementations reported NaN for."""
    torch.manual_seed(0)
    model = randomise(UniRepLKNet(SMALL_ARCH, drop_path_rate=0.2)).train()
    x = torch.randn(2, 3, *size)
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        maps = model(x)
        loss = sum(feature.float().square().mean() for feature in maps)
    loss.backward()
    assert all(feature.isfinite().all() for feature in maps)
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
    assert all(buffer.isfinite().all() for buffer in model.buffers())
    model.eval().switch_to_deploy()
    with torch.no_grad():
        assert all(feature.isfinite().all() for feature in model(x))
