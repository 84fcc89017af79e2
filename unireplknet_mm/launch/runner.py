"""From a config to a runner, and from an error to an exit status."""

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import distributed

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.errors import UserError

# How long a process waits for the first one of its machine to report an error that both met.
SECONDS_FOR_FIRST_RANK = 20


def exit_on_user_error(function: Callable) -> Callable:
    """Run a tool: an error of the user's ends it with status 1 and its message, without a traceback.

    In a distributed run the first process of each machine prints it.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            result = function(*args, **kwargs)
        except UserError as error:
            if os.environ.get('LOCAL_RANK', '0') != '0':
                time.sleep(SECONDS_FOR_FIRST_RANK)  # the launcher ends this process meanwhile
            print(f'error: {error}', file=sys.stderr, flush=True)  # noqa: T201
            sys.exit(1)
        if distributed.is_initialized():
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


def add_hook(cfg: Config, name: str) -> None:
    """Add a hook without arguments to the config's `custom_hooks`, unless it is there."""
    hooks = list(cfg.get('custom_hooks') or [])
    if all(hook.get('type') != name for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type=name)]


def build_runner(cfg: Config) -> Runner:
    """The runner of the config: MMEngine's Runner, or what `runner_type` names.

    It refuses a checkpoint that does not fit the model, where MMEngine would only warn.
    """
    add_hook(cfg, 'CheckpointCheckHook')
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
