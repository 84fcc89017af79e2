"""Accumulated gradients: epochs of whole update steps, and checkpoints between two of them.

With `optim_wrapper.accumulative_counts` MMEngine updates the weights once in so many iterations. Two
things are left to do:

- In the paper's training code an epoch is a whole number of update steps, and the images that do not fill
  one more are dropped, others in each epoch. In MMEngine the last step of an epoch goes on in the next one.
  `WholeStepTrainLoop` ends epochs as the paper does.
- Where a checkpoint is written between two updates, MMEngine loses the gradients that wait for the next
  one. `PendingGradientsHook` keeps them.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import MMSeparateDistributedDataParallel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import DATA_SAMPLERS, HOOKS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Sampler

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models.whole_model import unwrap_model

# Wrappers that leave whole gradients in the parameters of the model.
WHOLE_GRADIENTS = (DistributedDataParallel, MMSeparateDistributedDataParallel)


@DATA_SAMPLERS.register_module()
class WholeStepSampler(Sampler):
    """Yields of another sampler what fills whole update steps; `WholeStepTrainLoop` builds it.

    The batches that are left are a multiple of `accumulative_counts`, or all where there are fewer than
    that. As the order changes with the epoch, so do the samples that are left out.

    Args:
        dataset: what the sampler samples from.
        sampler: config of the other sampler.
        batch_size: samples in a batch.
        accumulative_counts: batches in an update step.
        drop_last: whether the data loader drops a batch that is not full.
        seed: passed on.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: dict,
        batch_size: int,
        accumulative_counts: int,
        drop_last: bool = False,
        seed: int | None = None,
    ):
        self.dataset = dataset
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        samples = len(self.sampler)
        batches = samples // batch_size if drop_last else math.ceil(samples / batch_size)
        if batches > accumulative_counts:
            batches -= batches % accumulative_counts
        self.length = min(samples, batches * batch_size)

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(self.sampler, self.length)

    def __len__(self) -> int:
        return self.length

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)


@LOOPS.register_module()
class WholeStepTrainLoop(EpochBasedTrainLoop):
    """EpochBasedTrainLoop whose epochs are whole numbers of update steps.

    The iterations of an epoch are rounded down to a multiple of `optim_wrapper.accumulative_counts`, and
    with them everything that is counted in epochs, such as learning rates. Where an epoch is shorter than
    one step, `accumulative_counts` is lowered to it; one without any iteration is an `ArgumentError`.

    Args:
        runner: one built from a config.
        dataloader: the config of the data loader; a batch sampler of its own fills its batches.
        **kwargs: those of EpochBasedTrainLoop.
    """

    def __init__(self, runner: Runner, dataloader: dict, **kwargs: Any):
        accumulated = runner.optim_wrapper.get('accumulative_counts', 1)
        batch_sampler = dataloader.get('batch_sampler') or {}
        sampler = dict(
            type='WholeStepSampler',
            sampler=dataloader['sampler'],
            batch_size=dataloader['batch_size'],
            accumulative_counts=accumulated,
            drop_last=dataloader.get('drop_last', batch_sampler.get('drop_last', False)),
        )
        super().__init__(runner, {**dataloader, 'sampler': sampler}, **kwargs)
        length = len(self.dataloader)
        if length == 0:
            raise ArgumentError(
                f'there are fewer images than one batch of {dataloader["batch_size"]}, and drop_last leaves '
                'out what does not fill one: lower train_dataloader.batch_size.'
            )
        if length < accumulated:
            runner.optim_wrapper['accumulative_counts'] = length
            runner.logger.warning(
                f'Gradients are accumulated over the {length} iterations of an epoch instead of '
                f'{accumulated}: an update step is no longer than an epoch.'
            )

    def run(self) -> nn.Module:
        length = len(self.dataloader)
        expected = self._epoch * length
        if self._iter != expected:
            # With MMEngine's count the last iterations would lie beyond `max_iters`, an error there.
            self.runner.logger.warning(
                f'The checkpoint has {self._iter} iterations in {self._epoch} epochs. An epoch has {length} '
                f'now: counted on from {expected}.'
            )
            self._iter = expected
            self.runner.optim_wrapper.initialize_count_status(
                self.runner.model, self._iter, self._max_iters
            )
        return super().run()


@HOOKS.register_module()
class PendingGradientsHook(Hook):
    """Keeps gradients that wait for the next update step in the checkpoints, as `pending_gradients`.

    In a distributed run each process accumulates its own. Before a checkpoint is written they become, in all
    of them, the mean over the processes, which is what the next update would have made of them: a single
    copy serves all, and the run goes on with the very numbers that a resumed one has. Loss scales need
    nothing, they do not change before that update. Where a training resumes with another accumulation, the
    gradients get the weight of the batches that follow.

    Not kept are gradients in shards (FSDP, DeepSpeed) and those of several optimizers; the log says so.
    """

    priority = 'LOW'  # before the hooks that write checkpoints

    def __init__(self):
        self.averaged_at = -1
        self.loaded: dict[str, torch.Tensor] = {}
        self.loaded_factor: float | None = None

    def before_train(self, runner: Runner) -> None:
        obstacle = _obstacle(runner)
        if obstacle:
            runner.logger.warning(
                f'Accumulated gradients are not kept in checkpoints {obstacle}: a training that resumes from '
                'a checkpoint between two updates will differ a little from an uninterrupted one.'
            )
        elif self.loaded and runner.optim_wrapper.should_update():
            runner.logger.warning(
                'The gradients that wait for the next update in the checkpoint are lost: with another '
                'accumulation no update is due here.'
            )
        elif self.loaded:
            self._restore(runner)
        self.loaded = {}

    def _restore(self, runner: Runner) -> None:
        factor = _loss_factor(runner.optim_wrapper)
        before = self.loaded_factor or factor
        for name, parameter in _parameters(runner.model):
            if name in self.loaded:
                gradient = self.loaded[name].to(parameter.device)
                parameter.grad = gradient if before == factor else gradient * (before / factor)
        if before == factor:
            runner.logger.info(
                'The gradients that wait for the next update were in the checkpoint: none is lost.'
            )
        else:
            runner.logger.warning(
                f'The gradients that wait for the next update were means over {before:g} batches, and are '
                f'rescaled to {factor:g}. The first update has not as many batches as the others.'
            )

    def after_train_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        if any(
            not hook.by_epoch and self.every_n_train_iters(runner, hook.interval, hook.save_begin)
            for hook in hooks
        ):
            self._average(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._average(runner)

    def before_val(self, runner: Runner) -> None:
        self._average(runner)  # a checkpoint of the best scores may follow

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        averaged = get_world_size() == 1 or self.averaged_at == runner.optim_wrapper.inner_count
        if _is_pending(runner) and averaged:
            checkpoint['pending_gradients'] = {
                name: parameter.grad.to('cpu', copy=True)
                for name, parameter in _parameters(runner.model)
                if parameter.grad is not None
            }
            checkpoint['pending_loss_factor'] = _loss_factor(runner.optim_wrapper)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self.loaded = checkpoint.get('pending_gradients', {})
            self.loaded_factor = checkpoint.get('pending_loss_factor')  # not in older checkpoints

    def _average(self, runner: Runner) -> None:
        if get_world_size() == 1 or not _is_pending(runner):
            return
        count = runner.optim_wrapper.inner_count
        if self.averaged_at == count:  # once more would round once more
            return
        self.averaged_at = count
        parameters = [parameter for _, parameter in _parameters(runner.model)]
        used = torch.tensor(
            [parameter.grad is not None for parameter in parameters], dtype=torch.int
        )
        all_reduce(used, 'max')
        for parameter, is_used in zip(parameters, used.tolist(), strict=True):
            if is_used:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                all_reduce(parameter.grad, 'mean')


def _parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    model = unwrap_model(model)
    return [(name, value) for name, value in model.named_parameters() if value.requires_grad]


def _loss_factor(wrapper: OptimWrapper) -> float:
    """By what the losses of the update step under way are divided: the number of its batches."""
    return 1 / wrapper.scale_loss(torch.ones((), dtype=torch.float64)).item()


def _is_pending(runner: Runner) -> bool:
    """Whether gradients wait for an update. MMEngine updates where its count says that it should."""
    return _obstacle(runner) is None and not runner.optim_wrapper.should_update()


def _obstacle(runner: Runner) -> str | None:
    wrapper, model = runner.optim_wrapper, runner.model
    if isinstance(wrapper, OptimWrapperDict) or not isinstance(wrapper, OptimWrapper):
        return f'by a {type(wrapper).__name__}'
    if is_model_wrapper(model) and not isinstance(model, WHOLE_GRADIENTS):
        return f'of a {type(model).__name__}'
    return None
