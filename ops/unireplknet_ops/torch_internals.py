"""Every name of torch that the package uses and that torch does not promise, with what replaces it.

Each is looked up once, at import. Where a release of torch lacks it, a slower way through torch's public
functions takes its place: results, gradients, autocast, compiling, exporting and tracing stay right, which
`tests/test_torch_internals.py` checks by taking away one name at a time.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import forward_ad

from unireplknet_ops.deferred import when_imported


def constant_in_graphs(function: Callable) -> Callable:
    """Let torch.compile run a function while it traces, and keep the result in the graph.

    That is `torch.compiler.assume_constant_result`, which imports the compiler, and that takes seconds: it
    waits until somebody else does.
    """
    when_imported('torch._dynamo', lambda: torch.compiler.assume_constant_result(function))
    return function


# Whether torch.jit.trace is recording.
is_tracing: Callable[[], bool] = getattr(torch._C, '_is_tracing', torch.jit.is_tracing)

# False where autocast is off for every type of device, which saves asking for one's own.
is_any_autocast_enabled: Callable[[], bool] = getattr(
    torch._C, '_is_any_autocast_enabled', lambda: True
)

# A context in which an operator goes straight to its kernel; for where nothing is to be differentiated.
below_autograd: Callable[[], contextlib.AbstractContextManager] = getattr(
    torch._C, '_AutoDispatchBelowAutograd', torch.no_grad
)


if hasattr(torch._C, '_ExcludeDispatchKeyGuard') and hasattr(torch._C, 'DispatchKeySet'):
    _AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU) | torch._C.DispatchKeySet(
        torch._C.DispatchKey.AutocastCUDA
    )

    def without_autocast(device_type: str) -> contextlib.AbstractContextManager:
        """A context in which operators compute in the dtype of their arguments."""
        return torch._C._ExcludeDispatchKeyGuard(_AUTOCAST)

else:

    def without_autocast(device_type: str) -> contextlib.AbstractContextManager:
        """A context in which operators compute in the dtype of their arguments."""
        if not torch.amp.is_autocast_available(device_type):
            return contextlib.nullcontext()
        return torch.autocast(device_type, enabled=False)


if hasattr(torch._C, '_get_tracing_state') and hasattr(torch._C, '_set_tracing_state'):

    @contextlib.contextmanager
    def tracing_paused() -> Iterator[None]:
        """Within it, torch.jit.trace records nothing: sizes are numbers, the graph's constants."""
        state = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)
        try:
            yield
        finally:
            torch._C._set_tracing_state(state)

else:

    @contextlib.contextmanager
    def tracing_paused() -> Iterator[None]:
        """Within it, torch.jit.trace also records what is computed from sizes, and does not warn."""
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            yield


class _Probe(torch.autograd.Function):
    """A function of the old form, which torch.func refuses to transform."""

    @staticmethod
    def forward(ctx, x: Tensor) -> None:
        return None


def _probe_transforms() -> bool:
    try:
        _Probe.apply(torch.empty(0))
    except RuntimeError:
        return True
    return False


def _probe_dual_level() -> bool:
    number = torch.zeros(())
    try:
        forward_ad.make_dual(number, number)  # needs a level
    except RuntimeError:
        return False
    return True


# Whether a transform of torch.func is running.
_is_in_transform: Callable[[], bool] = getattr(
    torch._C, '_are_functorch_transforms_active', _probe_transforms
)

if hasattr(forward_ad, '_current_level'):

    def _is_in_dual_level() -> bool:
        return forward_ad._current_level >= 0

else:
    _is_in_dual_level = _probe_dual_level


@constant_in_graphs
def is_transformed() -> bool:
    """Whether torch.func or forward-mode differentiation see more in a tensor than its data."""
    return _is_in_transform() or _is_in_dual_level()


_functorch = getattr(torch._C, '_functorch', None)

if hasattr(_functorch, 'is_batchedtensor') and hasattr(_functorch, 'is_legacy_batchedtensor'):

    def is_batched(tensor: Tensor) -> bool:
        """Whether a tensor stands for many, as gradients do within vmap and for `is_grads_batched`."""
        return _functorch.is_batchedtensor(tensor) or _functorch.is_legacy_batchedtensor(tensor)

else:

    def is_batched(tensor: Tensor) -> bool:
        """Whether a tensor stands for many; torch does not tell, but at what it cannot compute."""
        return False


if hasattr(torch.compiler, '_is_exporting_flag'):

    def is_exporting() -> bool:
        """Whether torch.export is recording; not in torch.compile, whose graphs stay in the process."""
        return torch.compiler._is_exporting_flag

else:

    def is_exporting() -> bool:
        """Whether torch.export or torch.compile is recording, which it does not tell apart."""
        return torch.compiler.is_exporting()


try:
    from torch._subclasses.fake_tensor import FakeTensor
except ImportError:
    FakeTensor = None


def is_fake(tensor: Tensor) -> bool:
    """Whether the tensor stands for a shape, while others compute with it as with any tensor.

    Where torch has no such class of that name, none is known, and they count as subclasses that may be
    more than their numbers.
    """
    return FakeTensor is not None and isinstance(tensor, FakeTensor)


if hasattr(torch._C, '_dispatch_has_kernel_for_dispatch_key'):

    def has_kernels(operator: str, device_type: str, file_name: str) -> bool:
        """Whether an operator ('namespace::name') has kernels for a type of device, from whatever library."""
        key = device_type.upper()
        return torch._C._dispatch_has_kernel_for_dispatch_key(operator, key)

else:

    def has_kernels(operator: str, device_type: str, file_name: str) -> bool:
        """Whether somebody has loaded a library of the name of the one that brings the kernels."""
        return any(Path(path).name == file_name for path in torch.ops.loaded_libraries)


if hasattr(torch, 'batch_norm_update_stats'):

    def batch_variance(x: Tensor) -> Tensor:
        """The biased variance of each channel of (N, C, H, W) x, in vectors, as BatchNorm takes it."""
        return torch.batch_norm_update_stats(x, None, None, 0.0)[1]

else:

    def batch_variance(x: Tensor) -> Tensor:
        """The biased variance of each channel of (N, C, H, W) x."""
        return torch.var(x, (0, 2, 3), correction=0)


if hasattr(torch, '_foreach_add_'):

    def add_all_(
        tensors: Sequence[Tensor], others: Sequence[Tensor] | int, alpha: float = 1
    ) -> None:
        """Add a number to each of the tensors, or `alpha` times a tensor of its dtype, in place."""
        if isinstance(others, int):
            torch._foreach_add_(tensors, others)
        else:
            torch._foreach_add_(tensors, others, alpha=alpha)

else:

    def add_all_(
        tensors: Sequence[Tensor], others: Sequence[Tensor] | int, alpha: float = 1
    ) -> None:
        """Add a number to each of the tensors, or `alpha` times a tensor of its dtype, in place."""
        if isinstance(others, int):
            others = [others] * len(tensors)
        for tensor, other in zip(tensors, others, strict=True):
            tensor.add_(other, alpha=alpha)


if hasattr(torch, '_foreach_mul_'):

    def multiply_all_(tensors: Sequence[Tensor], factor: float) -> None:
        """Multiply each of the tensors by a number, in place."""
        torch._foreach_mul_(tensors, factor)

else:

    def multiply_all_(tensors: Sequence[Tensor], factor: float) -> None:
        """Multiply each of the tensors by a number, in place."""
        for tensor in tensors:
            tensor.mul_(factor)


if hasattr(torch.cpu, 'get_capabilities'):

    @constant_in_graphs
    def has_float16_arithmetic() -> bool:
        """Whether the processor computes in float16, and does not convert."""
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ('avx512_fp16', 'amx_fp16', 'fp16_arith'))

    def has_slow_float32_products() -> bool:
        """Whether MKL, to which PyTorch hands float32 products, keeps to AVX2 where there is AVX-512."""
        capabilities = torch.cpu.get_capabilities()
        is_amd = 'AMD' in capabilities.get('cpu_name', '')
        return is_amd and bool(capabilities.get('avx512_f')) and torch.backends.mkl.is_available()

else:

    def has_float16_arithmetic() -> bool:
        """Whether the processor computes in float16, and does not convert; torch does not tell."""
        return False

    def has_slow_float32_products() -> bool:
        """Whether MKL leaves AVX-512 unused; torch does not tell."""
        return False


def _find_onednn_linear() -> Callable[..., Tensor] | None:
    try:
        return torch.ops.mkldnn._linear_pointwise
    except AttributeError:
        return None


_linear_pointwise = _find_onednn_linear()

if _linear_pointwise is None or not torch.backends.mkldnn.is_available():
    onednn_linear = None
else:

    def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`F.linear` on the CPU by oneDNN, without a derivative. None in the place of this: there is none."""
        return _linear_pointwise(x, weight, bias, 'none', [], '')
