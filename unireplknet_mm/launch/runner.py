"""From a config to a runner, and from an error to an exit status."""

import functools
import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import LoggerHook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import distributed, nn

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.errors import UserError
from unireplknet_mm.files import NO_SPACE, NoSpaceError, no_space_error
from unireplknet_mm.launch.channels import check_channels
from unireplknet_mm.launch.mistakes import explain_mistakes
from unireplknet_mm.launch.output import ClosedOutputError, checked_output, handle_log_error
from unireplknet_mm.launch.preflight import input_channels

# How long a process waits for the first one of its machine to report an error that both met.
SECONDS_FOR_FIRST_RANK = 20


def exit_on_user_error(function: Callable) -> Callable:
    """Run a tool: an error of the user's ends it with status 1 and its message, without a traceback.

    So does a full disk, whoever writes to it; a closed pipe ends it without a word. In a distributed run the
    first process of each machine prints the message.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with checked_output():
                result = function(*args, **kwargs)
        except ClosedOutputError:  # who wanted to read it has read enough
            sys.exit(1)
        except (UserError, OSError) as error:
            if not isinstance(error, UserError):
                if error.errno not in NO_SPACE:
                    raise
                error = no_space_error(error, error.filename)
            if os.environ.get('LOCAL_RANK', '0') != '0':
                time.sleep(SECONDS_FOR_FIRST_RANK)  # the launcher ends this process meanwhile
            print(f'error: {error}', file=sys.stderr, flush=True)  # noqa: T201
            sys.exit(1)
        if distributed.is_initialized():
            # A process that ends while it has threads of gloo was seen to abort in them. They end with the
            # group, which the model's wrapper holds, in cycles of the runner's.
            distributed.barrier()
            gc.collect()
            distributed.destroy_process_group()
        return result

    return run


def make_resumable(cfg: Config) -> None:
    """Let a training go on from a checkpoint as if never stopped, and without reading old batches.

    Its random numbers then depend on the position in the training only (`engine/randomness.py`), it finds its
    place among the batches by their indices (`engine/skipping.py`), and checkpoints hold the gradients that
    wait for an update (`engine/accumulation.py`).
    """
    loader = cfg.train_dataloader
    # In a config that a run left behind they are there.
    if type_name(loader.sampler) != 'SeededSampler':
        loader.sampler = dict(type='SeededSampler', sampler=loader.sampler)
        loader.dataset = dict(type='SeededDataset', dataset=loader.dataset)
    batch_sampler = loader.get('batch_sampler')
    if batch_sampler and type_name(batch_sampler) != 'SeekableBatchSampler':
        loader.batch_sampler = dict(type='SeekableBatchSampler', batch_sampler=batch_sampler)
    add_hook(cfg, 'SeededIterationHook')
    add_hook(cfg, 'SkipSeenBatchesHook')
    if any(part.get('accumulative_counts', 1) > 1 for part in find_dicts(cfg.optim_wrapper)):
        add_hook(cfg, 'PendingGradientsHook')


def watch_losses(cfg: Config) -> None:
    """Let the first NaN or infinite loss end a training, of configs that know nothing of that hook too.

    `default_hooks.non_finite_loss=None` leaves it out; so do runners other than MMEngine's `Runner`, which
    compute gradients in ways of their own.
    """
    is_left_out = (cfg.get('default_hooks') or {}).get('non_finite_loss', True) is None
    if not is_left_out and cfg.get('runner_type', 'Runner') == 'Runner':
        add_hook(cfg, 'NonFiniteLossHook')


def add_hook(cfg: Config, name: str) -> None:
    """Add a hook without arguments to the config's `custom_hooks`, unless it is there or a default one."""
    hooks = list(cfg.get('custom_hooks') or [])
    default_hooks = [hook for hook in (cfg.get('default_hooks') or {}).values() if hook]
    if all(type_name(hook) != name for hook in [*hooks, *default_hooks]):
        cfg.custom_hooks = [*hooks, dict(type=name)]


def build_runner(cfg: Config) -> Runner:
    """The runner of the config: MMEngine's Runner, or what `runner_type` names.

    It refuses a checkpoint that does not fit the model, where MMEngine would only warn.

    Raises:
        UserError: the config misspells a type or an argument of what is built at once, or a neck or head of
            the model takes other channels than it gets.
    """
    add_hook(cfg, 'CheckpointCheckHook')
    with explain_mistakes(cfg):
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    model = getattr(runner, 'model', None)
    if isinstance(model, nn.Module):  # FlexibleRunner builds its own later
        check_channels(model, input_channels(cfg, model), cfg.get('model'))
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = functools.partial(handle_log_error, handler)
    return runner


def test(runner: Runner) -> dict[str, float]:
    """Test with the runner of `build_runner`; its scores.

    Raises:
        UserError: the config misspells a type or an argument.
    """
    if (
        not is_main_process()
    ):  # MMEngine's writes the file of scores in all of them at once, one into the other
        runner.hooks[:] = [hook for hook in runner.hooks if not isinstance(hook, LoggerHook)]
    with explain_mistakes(runner.cfg):
        return runner.test()


def train(cfg: Config) -> Runner:
    """Build the runner of the config and train; return it.

    Raises:
        UserError: the config misspells a type or an argument.
        NoSpaceError: a disk is full; the message says which checkpoint a resumed training goes on from.
    """
    try:
        runner = build_runner(cfg)
        with explain_mistakes(cfg):
            runner.train()
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        message = str(no_space_error(error, error.filename or cfg.work_dir))
        last_checkpoint = Path(cfg.work_dir) / 'last_checkpoint'
        if last_checkpoint.is_file():
            checkpoint = last_checkpoint.read_text(encoding='utf-8')
            message += f' --resume goes on from {checkpoint}.'
        raise NoSpaceError(message, error.errno) from error
    return runner
