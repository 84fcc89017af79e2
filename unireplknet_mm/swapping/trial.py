"""Whether a swapped config works: its model is built, predicts, and has a loss with finite gradients."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from unireplknet_mm.configuration import drop_pretrained, find_dicts, type_name
from unireplknet_mm.mmcv_ops import MissingOpError
from unireplknet_mm.swapping.samples import random_batch
from unireplknet_mm.swapping.swap import TASK_OF_SCOPE, summarise

BATCH_SIZE = 2
# Two-stage DETRs choose some hundred of all pixels of all maps: 256² has 1,360.
SIZES = dict(det=(256, 256), seg=(128, 128), cls=(64, 64))
SSD_SIZE = (320, 320)  # its last maps are cut without padding
# Proposals and RoIs of two-stage detectors: how many there are changes nothing but the time.
AT_MOST = dict(nms_pre=100, max_per_img=50)
SAMPLED_AT_MOST = 32
BIG_INPUT = ('BatchFixedSizePad', 'BatchSyncRandomResize')


class Trial(NamedTuple):
    """What came of it: the loss, and for a model that cannot be tried on this machine why not."""

    loss: float | None
    obstacle: str | None = None

    def __str__(self) -> str:
        if self.obstacle:
            return f'Not tried to the end on this machine: {self.obstacle}.'
        return (
            'Tried on random images and weights: the model is built, predicts, and its loss is finite, as '
            'are the gradients in the whole backbone.'
        )


class TrialError(Exception):
    """A model that was built and does not train; the message says what is wrong."""


def try_model(config: ConfigDict) -> Trial:
    """Build model and optimiser of a config, take the gradients of a loss, and predict, on random images.

    On the CPU, with small images; weights to start from are left out.

    Raises:
        TrialError: the loss or a gradient of the backbone is not finite, or a parameter of the backbone gets
            none.
        Exception: what the model itself raises.
    """
    config = _small(config)
    scope = config['default_scope']
    task = TASK_OF_SCOPE[scope]
    size = SSD_SIZE if _has_type(config, 'SSDNeck') else SIZES[task]
    in_channels = config['model']['backbone'].get('in_channels', 3)
    try:
        with (
            DefaultScope.overwrite_default_scope(scope),
            torch.random.fork_rng(devices=[]),
            _first_epoch(),
        ):
            torch.manual_seed(0)
            model = revert_sync_batchnorm(MODELS.build(config['model']))
            model.init_weights()
            _fill_zeros(model)
            batch = random_batch(config, task, size, BATCH_SIZE, in_channels)
            if config.get('optim_wrapper'):
                build_optim_wrapper(model, _plain_wrapper(config['optim_wrapper']))
            loss = _train_once(model, copy.deepcopy(batch))
            _predict(model, batch)
    except MissingOpError as error:
        op = str(error).partition('`')[2].partition('`')[0]
        return Trial(None, f"it needs mmcv's compiled op {op}")
    except ImportError as error:
        return Trial(None, f'it needs a package that is not installed: {error}')
    return Trial(loss)


def parameter_names(config: ConfigDict) -> list[str]:
    """The names of the parameters of a config's model; none where it cannot be built on this machine."""
    config = _small(config)
    try:
        with (
            DefaultScope.overwrite_default_scope(config['default_scope']),
            torch.random.fork_rng(devices=[]),
        ):
            model = MODELS.build(config['model'])
    except Exception:  # why, whoever tries the model is told
        return []
    return [name for name, _ in model.named_parameters()]


def same_obstacle(original: ConfigDict, error: Exception) -> Trial | None:
    """Where the swapped model failed: whether the original fails here in the same way.

    An op or package that only the original lacks says nothing about the swapped model, which came past it.
    """
    try:
        try_model(original)
    except Exception as other:
        if summarise(other) == summarise(error):
            return Trial(None, f'the original does not work here either: {summarise(error)}')
    return None


def _small(config: ConfigDict) -> ConfigDict:
    """The same with nothing to download, and without what makes images and numbers of boxes large."""
    config = copy.deepcopy(config)
    model = config['model']
    drop_pretrained(model, lambda name: True)
    if config.get('data_preprocessor') and model.get('data_preprocessor') is None:
        model['data_preprocessor'] = config['data_preprocessor']  # as MMEngine's runner does
    preprocessor = model.get('data_preprocessor') or {}
    if preprocessor.get('size') is not None:
        preprocessor['size'] = SIZES['seg']
    if preprocessor.get('batch_augments'):
        kept = [part for part in preprocessor['batch_augments'] if type_name(part) not in BIG_INPUT]
        preprocessor['batch_augments'] = kept or None
    for part in find_dicts(model):
        if isinstance(part.get('nms_pre'), int):
            part.update({key: min(part[key], most) for key, most in AT_MOST.items() if key in part})
        if type_name(part).endswith('Sampler') and isinstance(part.get('num'), int):
            part['num'] = min(part['num'], SAMPLED_AT_MOST)
    return config


def _plain_wrapper(wrapper: ConfigDict) -> ConfigDict:
    """The optimiser's config without mixed precision, which asks for a GPU."""
    kept = ('optimizer', 'constructor', 'paramwise_cfg', 'accumulative_counts', 'clip_grad')
    return ConfigDict({key: wrapper[key] for key in kept if key in wrapper}, type='OptimWrapper')


def _has_type(config: ConfigDict, name: str) -> bool:
    return any(type_name(part) == name for part in find_dicts(config['model']))


def _fill_zeros(model: nn.Module) -> None:
    """Random numbers for weights of heads that start from 0, through which no gradient comes at first."""
    for name, param in model.named_parameters():
        if param.dim() > 1 and not name.startswith('backbone.') and not param.any():
            nn.init.normal_(param, std=0.01)


@contextmanager
def _first_epoch() -> Iterator[None]:
    """What MMEngine's runner tells losses that change over the training, such as TOOD's."""
    hub = MessageHub.get_current_instance()
    told = [key for key in ('epoch', 'iter') if hub.get_info(key) is None]
    for key in told:
        hub.update_info(key, 0)
    try:
        yield
    finally:
        for key in told:
            hub.pop_info(key)


def _train_once(model: nn.Module, batch: dict[str, Any]) -> float:
    """One loss and its gradients."""
    model.train()
    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode='loss')
    loss, _ = model.parse_losses(losses)
    if not torch.isfinite(loss):
        raise TrialError(f'the loss of random images is {loss.item()}')
    loss.backward()
    grads = {name: p.grad for name, p in model.backbone.named_parameters() if p.requires_grad}
    _refuse('no gradient', [name for name, grad in grads.items() if grad is None])
    _refuse(
        'a gradient that is not finite',
        [name for name, grad in grads.items() if not grad.isfinite().all()],
    )
    if not any(grad.any() for grad in grads.values()):
        raise TrialError('all gradients of the backbone are 0')
    return loss.item()


def _refuse(problem: str, names: list[str]) -> None:
    if names:
        raise TrialError(
            f'{len(names)} parameters of the backbone get {problem}: {", ".join(names[:3])}'
        )


def _predict(model: nn.Module, batch: dict[str, Any]) -> None:
    model.eval()
    data = model.data_preprocessor(batch, training=False)
    try:
        with torch.no_grad():
            model(**data, mode='predict')
    except MissingOpError:
        raise
    except Exception as error:  # whatever the code of a toolbox, or of the user, raises
        raise TrialError(
            f'loss and gradients are finite, but it does not predict: {summarise(error)}'
        ) from error
