"""Timing of calls in turn on a device, and of the op against torch's native convolution.

Of the op and the convolution, for `tune` and `benchmark`, both sides run in turn in the same process on the
same tensors, which are random. A time is the minimum (CPU)
or the median (CUDA) over the repetitions. On the CPU the tensors stay where the last call left them, in
cache as far as they fit, which is how a layer finds the output of the one before it. On CUDA a buffer larger
than the L2 cache is written before each call, and events around the call measure it.

Before its time counts, a result of the op is compared with float64: of each pass the first, the last and
that plane which differs most from the native result.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unireplknet_ops.convolution_rules import same_padding
from unireplknet_ops.depthwise.functional import depthwise_conv2d
from unireplknet_ops.depthwise.operators import native_gradient

# Relative error (2-norm over a plane or a filter) against float64 beyond which a result is wrong.
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}
# Sums of up to 10^5 products in float32, in whatever order.
GRAD_WEIGHT_TOLERANCES = TOLERANCES | {torch.float32: 1e-4}

SET_UP_SECONDS = 0.5  # more than what a first call sets up takes: compiled code, handles


class WrongResultError(RuntimeError):
    """The op computed something else than the convolution."""


class Shape(NamedTuple):
    """One depthwise convolution with a square kernel."""

    kernel_size: int
    dilation: int
    height: int
    width: int
    batch: int
    channels: int
    dtype: torch.dtype

    @property
    def elements(self) -> int:
        return self.batch * self.channels * self.height * self.width

    @property
    def flops(self) -> int:
        """Two for each tap and output, zeros of the padding counted as work."""
        return 2 * self.elements * self.kernel_size**2

    @property
    def valid_flops(self) -> int:
        """Without the products with padding."""
        rows = valid_taps(self.height, self.kernel_size, self.dilation)
        columns = valid_taps(self.width, self.kernel_size, self.dilation)
        return 2 * self.batch * self.channels * rows * columns

    def __str__(self) -> str:
        return (
            f'{self.kernel_size}x{self.kernel_size} dilation {self.dilation}, map {self.height}x'
            f'{self.width}, batch {self.batch}, channels {self.channels}, '
            f'{str(self.dtype).removeprefix("torch.")}'
        )


def _aligned(elements: int) -> int:
    """Rounded up, so that what follows in the pool is aligned as an allocation would be."""
    return -(-elements // 64) * 64


def pool_size(shape: Shape) -> int:
    """How many random numbers `Tensors` needs."""
    return 2 * _aligned(shape.elements) + shape.channels * shape.kernel_size**2


def make_pool(shapes: Iterable[Shape], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Random numbers for the shapes of one dtype."""
    size = max(pool_size(shape) for shape in shapes if shape.dtype == dtype)
    generator = torch.Generator(device).manual_seed(0)
    return torch.randn(size, generator=generator, device=device).to(dtype)


def valid_taps(length: int, kernel_size: int, dilation: int) -> int:
    """The taps along one axis that fall on the map, summed over its positions."""
    reach = kernel_size // 2
    return sum(max(length - abs(tap) * dilation, 0) for tap in range(-reach, reach + 1))


class Tensors:
    """Input, gradient of the output and filter of a shape, and the three passes on them.

    Args:
        shape: what to convolve.
        pool: random numbers of its dtype, at least `pool_size(shape)`; the tensors lie in it.
        channels_last: the memory format of input and gradient.
    """

    def __init__(self, shape: Shape, pool: Tensor, channels_last: bool):
        self.shape = shape
        stride = _aligned(shape.elements)
        maps = (pool[start : start + shape.elements] for start in (0, stride))
        if channels_last:
            size = (shape.batch, shape.height, shape.width, shape.channels)
            self.x, self.grad_output = (m.view(size).permute(0, 3, 1, 2) for m in maps)
        else:
            size = (shape.batch, shape.channels, shape.height, shape.width)
            self.x, self.grad_output = (m.view(size) for m in maps)
        size = (shape.channels, 1, shape.kernel_size, shape.kernel_size)
        self.weight = pool[2 * stride :][: math.prod(size)].view(size)

    def native(self, name: str) -> Tensor:
        return native_pass(name, self.x, self.grad_output, self.weight, self.shape.dilation)

    def op(self, name: str) -> Tensor:
        dilation, operators = self.shape.dilation, torch.ops.unireplknet
        if name == 'forward':
            return depthwise_conv2d(self.x, self.weight, dilation=dilation, implementation='op')
        if name == 'grad_input':
            return operators.depthwise_conv2d_backward_input(
                self.grad_output, self.weight, dilation
            )
        return operators.depthwise_conv2d_backward_weight(
            self.grad_output, self.x, self.weight.shape[2:], dilation
        )

    def check(self, name: str, result: Tensor, native_result: Tensor | None) -> None:
        """Compare a result of the op with float64.

        Args:
            name: the pass.
            result: what the op computed.
            native_result: what the native convolution did, None if it was not asked.

        Raises:
            WrongResultError: it is wrong in the planes looked at, or not finite anywhere.
        """
        if not torch.isfinite(result).all():
            raise WrongResultError(f'{name} of {self.shape} is not finite')
        is_filter = name == 'grad_weight'
        images = {0} if is_filter else {0, self.shape.batch - 1}
        channels = {0, self.shape.channels - 1}
        if native_result is not None:
            dimensions = (1, 2, 3) if is_filter else (2, 3)
            difference = (result.float() - native_result.float()).square().sum(dimensions)
            worst = int(difference.argmax())
            channels.add(worst % self.shape.channels)
            if not is_filter:
                images.add(worst // self.shape.channels)
        images, channels = sorted(images), sorted(channels)
        rows = slice(None) if is_filter else images  # the filter's gradient sums over all images
        x, grad_output = (t[rows][:, channels].double() for t in (self.x, self.grad_output))
        weight = self.weight[channels].double()
        expected = native_pass(name, x, grad_output, weight, self.shape.dilation)
        actual = result[channels] if is_filter else result[images][:, channels]
        axes = (-3, -2, -1) if is_filter else (-2, -1)
        errors = torch.linalg.vector_norm(actual.double() - expected, dim=axes)
        error = (errors / torch.linalg.vector_norm(expected, dim=axes)).max().item()
        tolerance = (GRAD_WEIGHT_TOLERANCES if is_filter else TOLERANCES)[self.shape.dtype]
        if not error <= tolerance:
            raise WrongResultError(
                f'{name} of {self.shape} has a relative error of {error:.2g}, above {tolerance:g}'
            )


def native_pass(name: str, x: Tensor, grad_output: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """One of `tuning_tables.PASSES` on torch's own convolution."""
    if name != 'forward':
        return native_gradient(name, grad_output, x, weight, dilation)
    padding = same_padding(weight.shape[2:], dilation)
    return F.conv2d(x, weight, None, 1, padding, dilation, weight.shape[0])


def in_turn(
    candidates: Sequence[Any], repeats: Sequence[int], seconds_of: Callable[[Any], float]
) -> Iterator[tuple[int, float]]:
    """Time candidates in rounds: one call of each, until each has had its repetitions.

    Whatever slows the machine down for a while then slows all of them down.

    Args:
        candidates: what to time.
        repeats: how often, for each.
        seconds_of: runs a candidate and says how long it took.

    Yields:
        The number of a candidate and its seconds, as soon as they are taken.
    """
    for turn in range(max(repeats, default=0)):
        for i, (candidate, repeat) in enumerate(zip(candidates, repeats, strict=True)):
            if turn < repeat:
                yield i, seconds_of(candidate)


def timed_call(
    function: Callable[[], Any],
    device: torch.device | str,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Any, float]:
    """A result and the seconds from the call until the device has finished it."""
    _synchronize(device)
    start = clock()
    result = function()
    _synchronize(device)
    return result, clock() - start


def _synchronize(device: torch.device | str) -> None:
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def thread_count(count: int) -> Iterator[None]:
    """torch's threads within a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Timer:
    """Times callables in turn.

    Args:
        device: 'cpu' or 'cuda'.
        budget: seconds to spend on repeating one callable.
        least, most: repetitions, whatever the budget says.
        once_above: a callable whose first call took more seconds is not called again.
        clock: of the CPU; `time.process_time` on one thread leaves out what else the machine does.
    """

    def __init__(
        self,
        device: torch.device | str,
        budget: float,
        least: int = 1,
        most: int = 30,
        once_above: float = math.inf,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.device = torch.device(device)
        self.budget = budget
        self.least = least
        self.most = most
        self.once_above = once_above
        self.clock = clock
        if self.device.type == 'cuda':
            l2_bytes = torch.cuda.get_device_properties(self.device).L2_cache_size
            self.flush_buffer = torch.empty(
                8 * max(l2_bytes, 2**24), dtype=torch.uint8, device=self.device
            )

    def first_call(self, function: Callable[[], Tensor]) -> tuple[Tensor, float]:
        """A result and the seconds of a call: of the second where the first may have paid for more."""
        result, seconds = self._call(function)
        if seconds < SET_UP_SECONDS:
            result, seconds = self._call(function)
        return result, seconds

    def _call(self, function: Callable[[], Tensor]) -> tuple[Tensor, float]:
        return timed_call(function, self.device, self.clock)

    def time(
        self, functions: Sequence[Callable[[], Tensor]], first_seconds: Sequence[float]
    ) -> list[float]:
        """Seconds of each callable, called in turn.

        Args:
            functions: what to time; each was called before.
            first_seconds: what `first_call` said.
        """
        measure = self._cuda_seconds if self.device.type == 'cuda' else self._cpu_seconds
        repeats = [self._repeats(seconds) for seconds in first_seconds]
        samples = [
            [] if repeat else [seconds]
            for repeat, seconds in zip(repeats, first_seconds, strict=True)
        ]
        for i, seconds in in_turn(functions, repeats, measure):
            samples[i].append(seconds)
        reduce = _median if self.device.type == 'cuda' else min
        return [reduce(collected) for collected in samples]

    def _repeats(self, first_seconds: float) -> int:
        if first_seconds > self.once_above:
            return 0
        return max(self.least, min(self.most, int(self.budget / max(first_seconds, 1e-7))))

    def _cpu_seconds(self, function: Callable[[], Tensor]) -> float:
        start = self.clock()
        function()
        return self.clock() - start

    def _cuda_seconds(self, function: Callable[[], Tensor]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush_buffer.zero_()  # while it runs, the host queues what follows: no launch gaps
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000


def _median(samples: Sequence[float]) -> float:
    return sorted(samples)[len(samples) // 2]


def matmul_rate(device: torch.device | str, dtype: torch.dtype, size: int) -> float:
    """FLOP/s of a square matrix product through torch; TF32 off."""
    allowed, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
    try:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        timer = Timer(device, budget=2.0, most=20)
        _, seconds = timer.first_call(lambda: a @ b)
        return 2 * size**3 / timer.time([lambda: a @ b], [seconds])[0]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
