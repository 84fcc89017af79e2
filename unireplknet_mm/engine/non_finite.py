"""The first NaN or infinite loss ends a training, with the iteration, the files and the layer it came from.

Without this a training goes on: the gradients are NaN, so are the weights after the next update, and hours
later a curve is empty. MMEngine's loggers print such losses; mmdet's `CheckInvalidLossHook` stops, but after
the update, when no layer can be found any more.

The loss is looked at between its backward pass and the update, so that the weights are still those which
made it: the forward pass is repeated, with a look at every layer's output. What a training pays for this:

- One number a loss is compared and copied to the host while the backward pass is computed, on a stream of
  its own. A GPU does not wait for it; the process waits for the end of the *forward* pass, with the backward
  pass already queued. (MMEngine's `RuntimeInfoHook` waits for each whole iteration, to log its losses.)
- Between processes one number is reduced a loss, at the same time, so that all of them end in the same
  iteration with the same message.

A gradient scaler's infinite gradients are not looked at: it skips such an update and lowers its factor.
"""

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_distributed
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, distributed, nn

from unireplknet_mm.errors import UserError
from unireplknet_mm.models.whole_model import unwrap_model

FILES_SHOWN = 4
NEVER = 10**9  # where no layer has an output that is not finite


class NonFiniteLossError(UserError):
    """A loss that is NaN or infinite."""


class Report(NamedTuple):
    """What one process found: where in its forward pass a value was first not finite, and in words."""

    position: int  # of the layer among the calls of the forward pass
    rank: int
    loss: float
    finding: str
    files: list[str]


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Ends a training at the first loss that is NaN or infinite, in every process.

    Works with mixed precision, accumulated gradients, several optimizers and distributed wrappers.

    Raises:
        NonFiniteLossError: while the training runs; it names the iteration, the files of the batch and the
            first layer with an output that is not finite. The weights were not updated with that loss.
    """

    priority = 'LOWEST'  # behind those that seed the random numbers of an iteration

    def __init__(self):
        self.batch: Any = None
        self.random_states: list[tuple[Callable[[Any], None], Any]] = []

    def before_train(self, runner: Runner) -> None:
        for wrapper in _wrappers_of(runner):
            vars(wrapper).pop('backward', None)  # of a training that an error ended
            wrapper.backward = functools.partial(self._backward, runner, wrapper, wrapper.backward)

    def after_train(self, runner: Runner) -> None:
        for wrapper in _wrappers_of(runner):
            vars(wrapper).pop('backward', None)
        self.batch, self.random_states = None, []

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None
    ) -> None:
        self.batch = data_batch
        self.random_states = _random_states()

    def _backward(
        self,
        runner: Runner,
        wrapper: OptimWrapper,
        backward: Callable,
        loss: Tensor,
        **kwargs: Any,
    ) -> None:
        """In place of a wrapper's `backward`, which is called with the loss as it was computed."""
        is_finite = start_check(loss)
        backward(loss, **kwargs)
        if not is_finite():
            raise NonFiniteLossError(self._explain(runner, wrapper, float(loss.detach())))

    def _explain(self, runner: Runner, wrapper: OptimWrapper, loss: float) -> str:
        """The message, the same in every process: of the one that was first in its forward pass."""
        model = unwrap_model(runner.model)
        for restore, state in self.random_states:  # for the same drop paths
            restore(state)
        with torch.no_grad(), wrapper.optim_context(model):
            position, finding = find_first_layer(model, self.batch)
        own = Report(position, get_rank(), loss, finding, files_of(self.batch))
        first = min(
            all_gather_object(own), key=lambda report: (_is_finite(report.loss), *report[:2])
        )
        where = []
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            where.append(f'epoch {runner.epoch + 1}')
        if get_world_size() > 1:
            where.append(f'rank {first.rank}')
        place = f' ({", ".join(where)})' if where else ''
        files = first.files
        shown = ', '.join(files[:FILES_SHOWN]) or 'its samples name no files'
        if len(files) > FILES_SHOWN:
            print_log(f'Batch with a loss of {first.loss}: {", ".join(files)}', logger='current')
            shown += f' and {len(files) - FILES_SHOWN} more, which the log names'
        return (
            f'the loss is {first.loss} in iteration {runner.iter + 1}{place}. {first.finding}\n'
            f'The batch: {shown}.\n'
            'Look at these files, lower the learning rate, clip gradients (optim_wrapper.clip_grad) or take '
            'bfloat16 instead of float16. --resume goes on from the last checkpoint.'
        )


def start_check(loss: Tensor) -> Callable[[], bool]:
    """Begin to find out whether a loss is finite in all processes; call what is returned for the answer.

    On GPUs the work between the two calls is not waited for.
    """
    is_finite = torch.isfinite(loss.detach()).all().float()
    work = None
    if is_distributed():
        work = distributed.all_reduce(is_finite, distributed.ReduceOp.MIN, async_op=True)
    if not is_finite.is_cuda:

        def answer() -> bool:
            if work is not None:
                work.wait()
            return bool(is_finite)

        return answer

    stream = _side_stream(is_finite.device)
    stream.wait_stream(torch.cuda.current_stream(is_finite.device))
    with torch.cuda.stream(stream):
        if work is not None:
            work.wait()
        on_host = torch.empty((), pin_memory=True)
        on_host.copy_(is_finite, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(stream)
    is_finite.record_stream(stream)

    def answer_of_gpu() -> bool:
        copied.synchronize()
        return bool(on_host)

    return answer_of_gpu


def find_first_layer(model: nn.Module, batch: Any) -> tuple[int, str]:
    """Repeat the forward pass of a batch and look for the first output that is not finite.

    Args:
        model: one of MMEngine's models, not wrapped; in training mode for what happened there.
        batch: as the data loader gave it.

    Returns:
        The place among the layers' calls (`NEVER` without one), and what was found, in words.
    """
    calls = itertools.count()
    found: list[tuple[int, str]] = []

    def look(name: str, layer: nn.Module, inputs: tuple, output: Any) -> None:
        position = next(calls)
        if not found and not _is_finite(output):
            found.append((position, _describe(name, layer, inputs)))

    handles = [
        layer.register_forward_hook(functools.partial(look, name))
        for name, layer in model.named_modules()
        if name and name != 'data_preprocessor'  # which passes on what is in the files
    ]
    try:
        data = model.data_preprocessor(batch, True)
        losses = model._run_forward(data, mode='loss')
    except Exception as error:  # what can go wrong here must not hide the loss that is not finite
        if not found:
            return (
                NEVER,
                f'The forward pass could not be repeated: {type(error).__name__}: {error}.',
            )
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return found[0]
    terms = [name for name, value in losses.items() if not _is_finite(value)]
    if terms:
        return (
            NEVER,
            f'Every layer has a finite output; of the losses, {", ".join(terms)} is not finite.',
        )
    return NEVER, 'Computed again, every output and every loss is finite.'


def files_of(batch: Any) -> list[str]:
    """The files that the samples of a batch name, in their order; without, their ids."""
    files = []
    for sample in _samples_of(batch):
        paths = [v for k, v in sample.items() if k.endswith('path') and isinstance(v, str)]
        ids = [f'{k} {v}' for k, v in sample.items() if k in ('img_id', 'sample_idx')]
        files += (paths or ids)[:1]
    return files


def _samples_of(batch: Any) -> Iterator[dict]:
    """The meta information of every sample, however deep in the batch."""
    if isinstance(batch, BaseDataElement):
        yield batch.metainfo
    elif isinstance(batch, dict):
        for value in batch.values():
            yield from _samples_of(value)
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from _samples_of(value)


def _describe(name: str, layer: nn.Module, inputs: tuple) -> str:
    """Which layer it was, and what went in."""
    first = f'The first output that is not finite is that of {name} ({type(layer).__name__})'
    weights = [n for n, parameter in layer.named_parameters() if not _is_finite(parameter)]
    if weights:
        return f'{first}, whose {weights[0]} is not finite.'
    if not _is_finite(inputs):
        return f'{first}, whose input is not finite either.'
    largest = max(
        ((float(t.abs().max()), t) for t in _tensors_in(inputs) if t.numel()), default=None
    )
    if largest is None:
        return f'{first}.'
    dtype = str(largest[1].dtype).removeprefix('torch.')
    return f'{first}, whose input reaches {largest[0]:.3g} in {dtype}.'


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        value = torch.tensor(value)
    return all(bool(torch.isfinite(tensor).all()) for tensor in _tensors_in(value))


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors of floating-point numbers in a nested output."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value.detach()
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors_in(part)


def _wrappers_of(runner: Runner) -> list[OptimWrapper]:
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def _random_states() -> list[tuple[Callable[[Any], None], Any]]:
    """The states of the generators that drop path, dropout and mixup draw from, and what sets each."""
    states = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state()),
        (torch.set_rng_state, torch.get_rng_state()),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states.append((torch.cuda.set_rng_state, torch.cuda.get_rng_state()))
    return states


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
