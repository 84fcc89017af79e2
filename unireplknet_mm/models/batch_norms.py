"""BatchNorm modules: what folding and fused steps take from them, and what they leave in them."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from mmengine.utils.dl_utils.parrots_wrapper import SyncBatchNorm  # what 'SyncBN' builds
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models import reparameterize as rep
from unireplknet_mm.models.layers import build_norm_layer, is_untouched
from unireplknet_ops.torch_internals import add_all_, multiply_all_

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, SyncBatchNorm)


def build_batch_norm(norm_cfg: dict, channels: int) -> _BatchNorm:
    norm = build_norm_layer(norm_cfg, channels)
    if not isinstance(norm, _BatchNorm):
        raise ArgumentError(
            f'norm_cfg={norm_cfg} is not a BatchNorm and would not fold: use BN or SyncBN'
        )
    return norm


def batch_norm_tensors(norm: _BatchNorm, dtype: torch.dtype) -> rep.BatchNormTensors:
    """A BatchNorm module's tensors in the dtype that folding computes in, as of an affine one.

    Raises:
        ArgumentError: it has no running statistics, or is another norm.
    """
    mean, var = getattr(norm, 'running_mean', None), getattr(norm, 'running_var', None)
    if mean is None or var is None:
        raise ArgumentError(f'{norm} does not fold: only BatchNorms with running statistics do')
    weight = torch.ones_like(mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(mean) if norm.bias is None else norm.bias
    return rep.BatchNormTensors(*(t.to(dtype) for t in (mean, var, weight, bias)), norm.eps)


def is_affine(norm: _BatchNorm) -> bool:
    return norm.weight is not None and norm.bias is not None


def uses_own_batch(norm: nn.Module) -> bool:
    """Whether a norm is a BatchNorm that takes the statistics of its input, in this process alone."""
    if not is_untouched(norm, *BATCH_NORMS):
        return False
    is_alone = type(norm) is nn.BatchNorm2d or not (
        torch.distributed.is_available() and torch.distributed.is_initialized()
    )
    return norm.training and is_affine(norm) and is_alone


def uses_own_statistics(norm: nn.Module) -> bool:
    """Whether a norm is a BatchNorm in evaluation, which takes the running statistics."""
    return (
        is_untouched(norm, *BATCH_NORMS)
        and not norm.training
        and is_affine(norm)
        and norm.running_mean is not None
    )


def update_running_statistics(
    norms: Sequence[_BatchNorm], means: Sequence[Tensor], variances: Sequence[Tensor]
) -> None:
    """What BatchNorms in training do with the means and the unbiased variances of their batch.

    All in few calls, since a compiler takes as long to trace a small step as a large one.
    """
    kept = [
        (norm, mean, var)
        for norm, mean, var in zip(norms, means, variances, strict=True)
        if norm.track_running_stats and norm.running_mean is not None
    ]
    norms = [norm for norm, _, _ in kept]
    counters = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
    if counters:
        add_all_(counters, 1)
    running = [norm.running_mean for norm in norms] + [norm.running_var for norm in norms]
    new = [mean for _, mean, _ in kept] + [var for _, _, var in kept]
    new = [value.to(old.dtype) for value, old in zip(new, running, strict=True)]
    momenta = {norm.momentum for norm in norms}
    if len(momenta) == 1 and None not in momenta:
        (momentum,) = momenta
        multiply_all_(running, 1 - momentum)  # not `lerp`, which makes NaN of the infinite
        add_all_(running, new, momentum)
        return
    for old, value, norm in zip(running, new, [*norms, *norms], strict=True):
        momentum = norm.momentum or 0.0
        if norm.momentum is None and norm.num_batches_tracked is not None:
            momentum = norm.num_batches_tracked.reciprocal()  # the average of all batches
        old.mul_(1 - momentum).add_(value * momentum)


@contextlib.contextmanager
def untracked_statistics(module: nn.Module) -> Iterator[None]:
    """Within it, BatchNorms in training mode leave their running statistics alone.

    For the second forward pass of activation checkpointing, which would count every batch twice. The
    norms still write (with weight 0): autograd must save the same tensors in both passes. And they still
    count, which SyncBatchNorm insists on, a number that is thrown away.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    saved = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, num_batches_tracked) in zip(norms, saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, num_batches_tracked
