"""What the tests of the depthwise convolution compare: shapes, layouts, tolerances, the reference.

The reference is `F.conv2d` in float64. All inputs are numbers that every tested dtype can hold, so one
reference serves them all, and an error is the kernel's own.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from unireplknet_ops import library
from unireplknet_ops.dispatch import Choice, Passes, Problem

# What a process that imports the package as the tests do needs on PYTHONPATH.
PACKAGES = Path(library.__file__).parents[1]
TESTS = Path(__file__).parent
# What UNIREPLKNET_CPU_ISA can ask for.
ISAS = ('portable', 'avx2', 'avx512', 'avx512_bf16')


class Case(NamedTuple):
    """Shape of the map and of the kernel, dilation."""

    n: int
    c: int
    h: int
    w: int
    kh: int
    kw: int
    dilation: int = 1

    def __str__(self) -> str:
        dilated = f'd{self.dilation}' if self.dilation > 1 else ''
        return f'{self.n}x{self.c}x{self.h}x{self.w}-k{self.kh}x{self.kw}{dilated}'


CASES = (
    Case(1, 1, 1, 1, 1, 1),
    Case(2, 3, 5, 7, 1, 1),
    Case(1, 1, 1, 1, 63, 63),  # nothing but the centre
    Case(2, 5, 9, 11, 3, 3),
    Case(3, 16, 14, 14, 3, 3),
    Case(2, 17, 7, 7, 5, 5),
    Case(2, 33, 13, 19, 7, 7),
    Case(1, 32, 28, 28, 7, 7),
    Case(2, 19, 12, 21, 9, 9),
    Case(1, 24, 17, 15, 11, 11),
    Case(2, 15, 14, 14, 13, 13),
    Case(1, 48, 28, 28, 13, 13),
    Case(3, 7, 7, 7, 13, 13),  # kernel larger than the map
    Case(2, 37, 29, 31, 13, 13),
    Case(1, 18, 23, 29, 17, 17),
    Case(2, 4, 10, 33, 25, 25),
    Case(1, 20, 14, 14, 31, 31),
    Case(1, 3, 64, 65, 31, 31),
    Case(1, 2, 40, 35, 63, 63),
    Case(1, 9, 19, 16, 51, 5),
    Case(1, 9, 16, 19, 5, 51),
    Case(2, 6, 1, 23, 7, 7),
    Case(2, 6, 23, 1, 7, 7),
    Case(1, 8, 1, 40, 31, 31),
    Case(5, 1, 8, 9, 1, 13),
    Case(5, 1, 9, 8, 13, 1),
    Case(64, 2, 3, 3, 5, 5),
    Case(1, 130, 6, 5, 3, 7),
    Case(2, 16, 17, 18, 7, 7, 2),
    Case(1, 21, 20, 13, 9, 9, 2),
    Case(2, 10, 14, 15, 5, 5, 2),
    Case(2, 12, 28, 11, 3, 3, 5),
    Case(1, 6, 12, 33, 3, 3, 15),  # outer taps beyond the border
    Case(1, 3, 9, 40, 5, 9, 15),
    # So wide that the CPU kernels take a row in several pieces.
    Case(1, 3, 9, 700, 3, 3),
    Case(1, 5, 11, 400, 31, 31),
    Case(1, 400, 6, 150, 5, 5),
    Case(1, 18, 5, 1100, 3, 3, 2),
    Case(1, 17, 4, 1300, 5, 5),
    Case(0, 4, 6, 7, 3, 3),
    Case(0, 16, 14, 14, 13, 13),
)

# A result may differ from the reference by `rounding` times its own size, for the last step, and by
# `accumulation` times the sum of the absolute values of its terms, for the steps before.
TOLERANCES = {
    torch.float64: dict(rounding=2**-52, accumulation=1e-14),
    torch.float32: dict(rounding=2**-23, accumulation=2e-6),
    torch.float16: dict(rounding=2**-11, accumulation=2e-6),
    torch.bfloat16: dict(rounding=2**-8, accumulation=2e-6),
}
SMALLEST_FLOAT16 = 2**-24

# Contiguous, but not at the start of an allocation: by so many elements.
SHIFTED = ('shifted_1', 'shifted_2', 'shifted_4')
LAYOUTS = ('contiguous', 'channels_last', 'sliced', 'transposed', *SHIFTED)


class Tensors(NamedTuple):
    """A convolution's inputs, or the absolute values of the terms of its results."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    grad_output: Tensor


class Results(NamedTuple):
    output: Tensor
    grad_x: Tensor
    grad_weight: Tensor
    grad_bias: Tensor


def dtypes_of(device: str) -> tuple[torch.dtype, ...]:
    """The dtypes that the op computes in; there is no float64 on GPUs."""
    return tuple(t for t in TOLERANCES if device == 'cpu' or t != torch.float64)


def reason_to_skip(device: str) -> str | None:
    if device == 'cuda' and not torch.cuda.is_available():
        return 'no GPU'
    reason = library.missing(device)
    return None if reason is None else f'no compiled op for {device}: {reason}'


@functools.cache
def inputs_of(case: Case) -> Tensors:
    """Float64 tensors on the CPU whose numbers are exact in every tested dtype."""
    generator = torch.Generator().manual_seed(hash(case) % 2**31)
    channels, kernel = case.c, (case.kh, case.kw)
    shapes = (case[:4], (channels, 1, *kernel), (channels,), case[:4])
    numbers = (torch.randn(shape, generator=generator) for shape in shapes)
    # The last of bfloat16's eight bits at 2**-10: a float16 as well.
    return Tensors(*((number.bfloat16().double() * 2**10).round() / 2**10 for number in numbers))


def run(convolution, tensors: Tensors) -> Results:
    """Output and gradients of `convolution(x, weight, bias)` for the inputs and gradient given."""
    x, weight, bias = (tensor.detach().requires_grad_() for tensor in tensors[:3])
    output = convolution(x, weight, bias)
    grads = torch.autograd.grad(output, (x, weight, bias), tensors.grad_output)
    return Results(output.detach(), *grads)


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> Tensor:
    padding = [dilation * (size - 1) // 2 for size in weight.shape[2:]]
    return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=len(weight))


@functools.cache
def expected_of(case: Case) -> tuple[Results, Results]:
    """The reference's results, and the sums of the absolute values of their terms."""
    tensors = inputs_of(case)
    convolution = functools.partial(reference, dilation=case.dilation)
    return run(convolution, tensors), run(convolution, Tensors(*(t.abs() for t in tensors)))


def with_layout(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers with other strides or at another address."""
    if layout == 'contiguous':
        return tensor.contiguous()
    if layout == 'channels_last':
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == 'transposed':
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    if layout in SHIFTED:
        offset = int(layout.removeprefix('shifted_'))
        longer = tensor.new_full((offset + tensor.numel(),), torch.nan)
        return longer[offset:].view(tensor.shape).copy_(tensor)
    n, c, h, w = tensor.shape
    larger = tensor.new_full((n, 2 * c + 1, h + 3, 3 * w + 2), torch.nan)
    view = larger[:, 1 : 2 * c + 1 : 2, 2 : h + 2, 1 : 3 * w + 1 : 3]
    return view.copy_(tensor)


def assert_close(actual: Tensor, expected: Tensor, magnitude: Tensor, name: str = '') -> None:
    """Compare with float64 numbers within `TOLERANCES` of the actual dtype."""
    assert actual.shape == expected.shape, name
    tolerance = TOLERANCES[actual.dtype]
    allowed = tolerance['rounding'] * expected.abs() + tolerance['accumulation'] * magnitude
    if actual.dtype == torch.float16:
        allowed = allowed + SMALLEST_FLOAT16
    error = (actual.double().cpu() - expected).abs()
    wrong = ~(error <= allowed)  # NaN is wrong
    assert not wrong.any(), (
        f'{name}: {int(wrong.sum())} of {wrong.numel()} numbers are wrong, the first at '
        f'{wrong.nonzero()[0].tolist()}: {actual.cpu()[wrong][0]} instead of {expected[wrong][0]}'
    )


def check(convolution, case: Case, dtype: torch.dtype, device: str, layout: str) -> None:
    """Compare output and all gradients of `convolution(x, weight, bias, dilation=)`."""
    x, weight, bias, grad_output = (t.to(device, dtype) for t in inputs_of(case))
    tensors = Tensors(with_layout(x, layout), weight, bias, with_layout(grad_output, layout))
    results = run(functools.partial(convolution, dilation=case.dilation), tensors)
    for name, result, expected, magnitude in zip(
        Results._fields, results, *expected_of(case), strict=True
    ):
        assert result.dtype == dtype, name
        assert_close(result, expected, magnitude, f'{name} of {case}, {dtype}, {layout}')


class RecordedCalls(TorchDispatchMode):
    """Within it, `names` grows by the name of every operator that runs."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function._opname)
        return function(*args, **(kwargs or {}))

    def implementations(self) -> list[str]:
        """Of each convolution, which implementation ran."""
        known = dict(convolution='native', conv2d='native', depthwise_conv2d='op')
        return [known[name] for name in self.names if name in known]


def answer_always(answer: str | Passes, questions: list[Problem]) -> Callable[[Problem], Choice]:
    """A stand-in for the choice by measurement, of all passes or of each, which notes what it is asked about.

    It stands here, since what torch.compile inlines must not come from a module that is called
    conftest: with two of them, a graph's guards look its names up in the other one.
    """

    passes = Passes(answer, answer, answer) if isinstance(answer, str) else answer

    def choose_by_measurement(problem: Problem) -> Choice:
        if not torch.compiler.is_compiling():
            questions.append(problem)
        return Choice(passes, 'the test says so')

    return choose_by_measurement


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def start_python(code: str, **environment: str) -> subprocess.Popen:
    """A process that can import the package and the tests, and whose output is kept."""
    paths = [str(PACKAGES), str(TESTS), os.environ.get('PYTHONPATH', '')]
    return subprocess.Popen(
        [sys.executable, '-c', code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths)), **environment},
    )


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    process = start_python(code, **environment)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def check_instruction_set(isa: str, process: subprocess.Popen) -> None:
    """That a process started with UNIREPLKNET_CPU_ISA=isa ends well, and prints its level in the end."""
    stdout, stderr = process.communicate()
    if isa != 'portable' and f'{isa} cannot run here: choose one of' in stderr:
        pytest.skip(stderr.splitlines()[-1])
    assert process.returncode == 0, stderr
    assert stdout.split() == [isa]
