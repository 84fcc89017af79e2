"""Layers by the names that `conv_cfg` and `norm_cfg` give them, with mmcv's builders or, without mmcv, alone.

Where mmcv is installed, every name that it knows may stand in a config. Without it, as for users of other
libraries, the backbone needs only what MMEngine's registry holds and the few layers of torch below.
"""

import contextlib
import contextvars
import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from unireplknet_mm.errors import ArgumentError
from unireplknet_ops import is_available
from unireplknet_ops.convolution_rules import is_channels_last
from unireplknet_ops.torch_internals import (
    has_float16_arithmetic,
    is_exporting,
    is_transformed,
)

HAS_MMCV = importlib.util.find_spec('mmcv') is not None
if HAS_MMCV:
    from mmcv import cnn

# What mmcv's registry would know of these.
NORMS = dict(BN=nn.BatchNorm2d, SyncBN=nn.SyncBatchNorm, BN2d=nn.BatchNorm2d)
CONVOLUTIONS = dict(Conv2d=nn.Conv2d, Conv=nn.Conv2d)


def build_conv_layer(conv_cfg: dict | None, *args: Any, **kwargs: Any) -> nn.Module:
    """A convolution of the type that `conv_cfg` names, `nn.Conv2d` for None.

    Args:
        conv_cfg: `dict(type=...)` and further arguments of that type.
        args, kwargs: as of `nn.Conv2d`.

    Raises:
        ArgumentError: there is no such layer, or it does not take the arguments.
    """
    if conv_cfg is None:
        conv_cfg = dict(type='Conv2d')
    layer = _find_layer('conv_cfg', conv_cfg, CONVOLUTIONS)
    try:
        if HAS_MMCV:
            return cnn.build_conv_layer(conv_cfg, *args, **kwargs)
        return layer(*args, **kwargs, **_without_type(conv_cfg))
    except TypeError as error:
        raise ArgumentError(f'conv_cfg={conv_cfg}: {error}') from error


def build_norm_layer(norm_cfg: dict, num_features: int) -> nn.Module:
    """A norm over `num_features` channels of the type that `norm_cfg` names.

    `requires_grad=False` in it freezes its parameters; eps is 1e-5 unless stated.

    Raises:
        ArgumentError: as in `build_conv_layer`.
    """
    layer = _find_layer('norm_cfg', norm_cfg, NORMS)
    try:
        if HAS_MMCV:
            return cnn.build_norm_layer(norm_cfg, num_features)[1]
        arguments = _without_type(norm_cfg)
        requires_grad = arguments.pop('requires_grad', True)
        return layer(num_features, **arguments).requires_grad_(requires_grad)
    except TypeError as error:
        raise ArgumentError(f'norm_cfg={norm_cfg}: {error}') from error


def _find_layer(option: str, cfg: dict, known: dict[str, type]) -> Any:
    """The class or function that a config's type names: a registered one or, without mmcv, a known one."""
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise ArgumentError(f'{option} must be a dict with a type, got {cfg!r}')
    if not isinstance(cfg['type'], str):
        return cfg['type']
    with MODELS.switch_scope_and_registry(None) as registry:
        layer = registry.get(cfg['type']) or known.get(cfg['type'])
    if layer is None:
        more = '' if HAS_MMCV else ', or install mmcv, which knows more'
        raise ArgumentError(
            f'{option}={cfg} names no layer that is registered: use {", ".join(known)}{more}'
        )
    return layer


def _without_type(cfg: dict) -> dict:
    return {key: value for key, value in cfg.items() if key != 'type'}


def linear_like(linear: nn.Linear, weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer with bias that takes the place of `linear`."""
    new = nn.Linear(linear.in_features, linear.out_features, device='meta')
    return with_parameters_like(new, linear, weight, bias)


def with_parameters_like(new: nn.Module, old: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    requires_grad = old.weight.requires_grad
    for name, tensor in (('weight', weight), ('bias', bias)):
        tensor = tensor.to(old.weight.dtype).contiguous()
        setattr(new, name, nn.Parameter(tensor, requires_grad=requires_grad))
    return new.train(old.training)


# Torch does not promise where it keeps them, of a module and of all: where they are gone, every module counts
# as touched, which is slower and right.
HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
GLOBAL_HOOKS = tuple(f'_global{hooks}' for hooks in HOOKS)


def is_untouched(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a module does what its type says: it is of one of these very types, and nobody hooked into it.

    Subclasses, parametrized modules, those whose `forward` was replaced and all modules while a hook for
    every module is registered are touched. Only then may its computation be done elsewhere.
    """
    # Asked a dozen times a block: with loops, it took 3 % of a small picture's time.
    attributes, of_all = module.__dict__.get, vars(torch_module).get
    forward, forward_pre, backward, backward_pre = HOOKS
    all_forward, all_forward_pre, all_backward, all_backward_pre = GLOBAL_HOOKS
    return (
        type(module) in kinds
        and 'forward' not in module.__dict__
        and not (
            attributes(forward, True)
            or attributes(forward_pre, True)
            or attributes(backward, True)
            or attributes(backward_pre, True)
            or of_all(all_forward, True)
            or of_all(all_forward_pre, True)
            or of_all(all_backward, True)
            or of_all(all_backward_pre, True)
        )
    )


def computes_as(layer: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a convolution or linear layer is what its weight and bias say, with no `forward` of its own.

    Parametrized ones have none, and mmcv's, which is for empty batches, changes nothing.
    """
    known = [kind.forward]
    if HAS_MMCV:
        known.append(getattr(cnn, kind.__name__).forward)
    return (
        isinstance(layer, kind) and type(layer).forward in known and 'forward' not in layer.__dict__
    )


def leaves_process() -> bool:
    """Whether a graph is being recorded that other programs run, or transformed by `torch.func`."""
    return (
        is_exporting()
        or torch.jit.is_tracing()
        or torch.onnx.is_in_onnx_export()
        or is_transformed()  # vmap knows no memory formats
    )


@torch.jit.unused
def is_faster_channels_last(x: Tensor) -> bool:
    """Whether a backbone takes a map that is not channels_last faster if it computes in channels_last.

    So it was measured on CPUs with the compiled op, in float32, bfloat16 and float16 (2.2 times as fast).
    Graphs that leave the process, and torch.fx, whose x is no tensor, keep the layout that they are given.
    """
    return (
        isinstance(x, Tensor)
        and x.device.type == 'cpu'
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and x.dim() == 4
        and (x.shape[1] == 1 or not is_channels_last(x))  # one channel's strides say neither
        and is_available('cpu')
        and not leaves_process()
    )


_rearranges = contextvars.ContextVar('_rearranges', default=True)


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Within it, modules compute one after another: what rearranged ones are compared with."""
    token = _rearranges.set(False)
    try:
        yield
    finally:
        _rearranges.reset(token)


def may_rearrange_modules() -> bool:
    """Whether nobody has asked for modules `as_written`."""
    return _rearranges.get()


def is_autocast(device_type: str) -> bool:
    is_available = torch.amp.is_autocast_available(device_type)  # not on 'meta'
    return is_available and torch.is_autocast_enabled(device_type)


def may_rearrange(x: Tensor, parameters: Iterable[Tensor | None]) -> bool:
    """Whether modules may compute a map in another order than they are written.

    So they may in float32 or float64 throughout, without autocast, whose dtypes follow from the order.
    Compiled graphs fuse by themselves, those that leave the process show the modules, and subclasses of
    tensors may be more than their numbers.
    """
    return (
        isinstance(x, Tensor)  # not a torch.fx proxy
        and not torch.compiler.is_compiling()
        and x.dtype in (torch.float32, torch.float64)
        and all(
            type(tensor) in (Tensor, nn.Parameter) and tensor.dtype == x.dtype
            for tensor in (x, *parameters)
            if tensor is not None
        )
        and not is_autocast(x.device.type)
        and not leaves_process()
        and may_rearrange_modules()
    )


def may_rearrange_training(x: Tensor, parameters: Iterable[Tensor | None]) -> bool:
    """Whether they may where it pays only in training on the CPU: where something needs a gradient."""
    return torch.is_grad_enabled() and may_rearrange(x, parameters) and x.device.type == 'cpu'


def is_slow_in_float16(x: Tensor, parameters: Iterable[Tensor | None]) -> bool:
    """Whether PyTorch's dense convolution or product takes several times as long as the same in float32.

    So it does in float16, also by autocast, on processors without instructions for it. Graphs that leave the
    process keep the dtype that they are given.
    """
    if not isinstance(x, Tensor) or x.device.type != 'cpu':  # a torch.fx proxy
        return False
    tensors = [x, *(tensor for tensor in parameters if tensor is not None)]
    if torch.is_autocast_enabled('cpu'):
        # Autocast leaves float64 as it is; a compiler records what it does.
        computes_so = (
            torch.get_autocast_dtype('cpu') == torch.float16
            and all(t.dtype in (torch.float32, torch.float16) for t in tensors)
            and not torch.compiler.is_compiling()
        )
    else:
        computes_so = all(tensor.dtype == torch.float16 for tensor in tensors)
    return computes_so and not has_float16_arithmetic() and not leaves_process()


def to_channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last; convolutions go on in it also where there is one channel."""
    if x.shape[1] == 1:  # both layouts in one, of which `contiguous` leaves the strides of NCHW
        return x.squeeze(1).contiguous().unsqueeze(3).permute(0, 3, 1, 2)
    return x.contiguous(memory_format=torch.channels_last)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): in training, skips samples of a residual branch.

    Those that are kept are divided by the probability of being kept.

    Args:
        drop_prob: probability that a sample is skipped.
    """

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0 or not self.training:
            return x
        return skip_samples(x, self.drop_prob)


def skip_samples(x: Tensor, drop_prob: float) -> Tensor:
    """What `DropPath` does in training."""
    keep = 1 - drop_prob
    shape = (x.shape[0],) + (1,) * (x.dim() - 1)
    # As mmcv draws it, so that a seed gives the same paths: floor(keep + U(0, 1)).
    mask = torch.floor(keep + torch.rand(shape, dtype=x.dtype, device=x.device))
    return x.div(keep) * mask


torch.fx.wrap('skip_samples')  # a node of its own for torch.fx, which knows no rank
