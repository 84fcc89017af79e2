"""The op for the Dilated Reparam Block in training: against `naive.py` in float64, and in recorded graphs."""

import functools
import warnings
from typing import NamedTuple

import pytest
import torch
from op_cases import (
    ISAS,
    LAYOUTS,
    RecordedCalls,
    check_instruction_set,
    reason_to_skip,
    start_python,
    with_layout,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unireplknet_ops import choice, dilated_reparam, dilated_reparam_takes_op, dispatch
from unireplknet_ops.dilatedreparam import functional, naive
from unireplknet_ops.errors import ArgumentError, OpUnavailableError

pytestmark = pytest.mark.skipif(
    reason_to_skip('cpu') is not None, reason='no compiled op: the operator is not defined'
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# (kernel size, dilation) of the branches.
K5 = ((5, 1), (3, 1), (3, 2))
K13 = ((13, 1), (5, 1), (7, 2), (3, 3), (3, 4), (3, 5))
K31 = ((31, 1), (5, 1), (15, 2), (3, 7), (3, 10), (3, 13))


class Case(NamedTuple):
    """Shape of the map, and the branches."""

    n: int
    c: int
    h: int
    w: int
    branches: tuple[tuple[int, int], ...] = K13


CASES = (
    Case(1, 1, 2, 3, K5),
    Case(2, 3, 5, 7, K5),
    Case(3, 17, 7, 7),
    Case(9, 16, 7, 7),  # groups of images, and what is left of them
    Case(8, 33, 14, 14),
    Case(1, 20, 28, 28),
    Case(2, 5, 29, 31),
    Case(2, 5, 1, 9),
    Case(2, 5, 40, 1, K31),
    Case(2, 40, 9, 31, K31),  # kernel larger than the map
    Case(5, 3, 56, 60),  # more than is kept: the branches are computed twice
    Case(9, 3, 56, 60, ((3, 4), (9, 1), (5, 1))),  # the largest not first
    Case(1, 2, 100, 168, K5),
    Case(2, 6, 11, 12, ((9, 1),)),
    Case(2, 6, 11, 12, ((3, 4), (9, 1), (5, 1))),
    Case(64, 2, 3, 3, K5),
)


class Inputs(NamedTuple):
    x: Tensor
    weights: tuple[Tensor, ...]
    scales: tuple[Tensor, ...]
    shifts: tuple[Tensor, ...]
    grad_output: Tensor

    def parameters(self) -> tuple[Tensor, ...]:
        return *self.weights, *self.scales, *self.shifts


def settings_of(case: Case) -> tuple[list[int], list[float]]:
    """Dilations and eps."""
    return [d for _, d in case.branches], [1e-5 * (i + 1) for i in range(len(case.branches))]


@functools.cache
def inputs_of(case: Case) -> Inputs:
    """Float64 numbers that every tested dtype can hold; x is not centred."""
    generator = torch.Generator().manual_seed(hash(case) % 2**31)
    channels = case.c

    def numbers(*sizes, scale=1.0):
        return (scale * torch.randn(sizes, generator=generator)).bfloat16().half().double()

    return Inputs(
        (numbers(*case[:4]) + 0.5).bfloat16().half().double(),
        tuple(numbers(channels, 1, k, k, scale=1 / k) for k, _ in case.branches),
        tuple(numbers(channels) for _ in case.branches),
        tuple(numbers(channels) for _ in case.branches),
        numbers(*case[:4]),
    )


def as_dtype(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return Inputs(
        *(t.to(dtype) if isinstance(t, Tensor) else tuple(p.to(dtype) for p in t) for t in inputs)
    )


def run(function, case: Case, inputs: Inputs) -> dict[str, Tensor]:
    """Outputs and gradients."""
    count = len(case.branches)
    dilations, eps = settings_of(case)
    x, *parameters = (t.detach().requires_grad_() for t in (inputs.x, *inputs.parameters()))
    weights, scales, shifts = (parameters[i * count : (i + 1) * count] for i in range(3))
    y, mean, var = function(x, weights, dilations, scales, shifts, eps)
    grad_x, *grads = torch.autograd.grad(y, [x, *parameters], inputs.grad_output)
    names = [
        f'gradient of {kind} {b}' for kind in ('weight', 'scale', 'shift') for b in range(count)
    ]
    results = dict(zip(names, grads, strict=True))
    return dict(y=y.detach(), mean=mean, var=var, grad_x=grad_x, **results)


@functools.cache
def expected_of(case: Case) -> dict[str, Tensor]:
    return {k: t.detach() for k, t in run(naive.dilated_reparam, case, inputs_of(case)).items()}


@functools.cache
def plain_of(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    """On PyTorch's own convolutions too, whatever 'auto' would take for them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(dispatch.FORCE_VARIABLE, 'native')
        return run(plain, case, as_dtype(inputs_of(case), dtype))


op = functools.partial(dilated_reparam, implementation='op')
plain = functools.partial(dilated_reparam, implementation='native')

# The most that a tensor may differ from the formulas in float64, in the Euclidean norm; in 16 bits, results
# are rounded once. Where the formulas lose digits, twice the error of PyTorch's operators is allowed.
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 3e-3, torch.float16: 4e-4}


def distance(actual: Tensor, expected: Tensor) -> float:
    return (actual.double() - expected).norm().item()


def check(case: Case, dtype: torch.dtype, layout='contiguous', grad_layout=None) -> None:
    """Compare the op with the formulas in float64, and its error with that of PyTorch's operators."""
    inputs = as_dtype(inputs_of(case), dtype)
    inputs = inputs._replace(
        x=with_layout(inputs.x, layout),
        grad_output=with_layout(inputs.grad_output, grad_layout or layout),
    )
    actual, expected = run(op, case, inputs), expected_of(case)
    assert actual['y'].dtype == actual['grad_x'].dtype == dtype
    memory_format = (
        torch.channels_last if layout == 'channels_last' and case.c > 1 else torch.contiguous_format
    )
    assert actual['y'].is_contiguous(memory_format=memory_format)
    others = plain_of(case, torch.float32)  # those of 16 bits are slow, and no better
    for name, exact in expected.items():
        allowed = TOLERANCES[dtype] * exact.norm().item() + 2 * distance(others[name], exact)
        error = distance(actual[name], exact)
        assert error <= allowed, f'{name} of {case} in {dtype}: {error} > {allowed}'


@pytest.mark.usefixtures('nan_in_new_memory')
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('case', CASES, ids=str)
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_against_the_formulas(case, dtype, layout):
    check(case, dtype, layout)


def test_no_worse_than_the_plain_form_in_bfloat16():
    """Which rounds every branch, its norm and every sum."""
    case = Case(4, 20, 14, 14)
    expected = expected_of(case)
    actual = run(op, case, as_dtype(inputs_of(case), torch.bfloat16))
    other = plain_of(case, torch.bfloat16)
    for name in ('y', 'grad_x', *(f'gradient of weight {b}' for b in range(6))):
        assert distance(actual[name], expected[name]) <= 0.7 * distance(other[name], expected[name])


CHECK_ALL = """
import torch
from test_dilated_reparam import CASES, DTYPES, check
torch.use_deterministic_algorithms(True, warn_only=True)  # new memory holds NaN
for case in CASES:
    for dtype in DTYPES:
        check(case, dtype, 'contiguous', 'channels_last')
print(torch.ops.unireplknet.cpu_isa())
"""


@pytest.mark.parametrize('isa', ISAS)
def test_every_instruction_set(isa):
    check_instruction_set(isa, start_python(CHECK_ALL, UNIREPLKNET_CPU_ISA=isa))


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('grad_layout', ['contiguous', 'channels_last', 'sliced'])
def test_strides(layout, grad_layout):
    check(Case(2, 19, 6, 9), torch.float32, layout, grad_layout)


def test_gradient_of_a_sum():
    """Which has strides of zero."""
    case = Case(2, 19, 6, 9)
    inputs = inputs_of(case)
    ones = torch.ones_like(inputs.grad_output)
    expected = run(naive.dilated_reparam, case, inputs._replace(grad_output=ones))
    actual = run(
        op,
        case,
        as_dtype(inputs, torch.float32)._replace(grad_output=torch.ones(1).expand(case[:4])),
    )
    assert distance(actual['gradient of shift 3'], expected['gradient of shift 3']) == 0
    assert actual['grad_x'].abs().max() < 1e-5  # the mean of every branch is its shift


def test_variance_of_a_map_far_from_zero():
    """A sum of squares in float32 would have no correct digit."""
    case = Case(4, 16, 14, 14, ((1, 1), *K5))
    inputs = inputs_of(case)
    inputs = inputs._replace(x=inputs.x + 4096)
    inputs = inputs._replace(x=inputs.x.float().double())
    expected = run(naive.dilated_reparam, case, inputs)
    actual = run(op, case, as_dtype(inputs, torch.float32))
    other = run(plain, case, as_dtype(inputs, torch.float32))
    for name in ('y', 'var'):
        error = distance(actual[name], expected[name]) / expected[name].norm().item()
        assert error <= max(
            1e-5, 1.5 * distance(other[name], expected[name]) / expected[name].norm().item()
        )


def test_runs_and_threads_agree_to_the_bit():
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            case = Case(8, 33, 14, 14)
            results.append(run(op, case, as_dtype(inputs_of(case), torch.float32)))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(tensor, results[0][name]) for name, tensor in result.items())


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_nan_stays_in_its_channel(dtype):
    case = Case(3, 17, 7, 7)
    inputs = as_dtype(inputs_of(case), dtype)
    expected = run(op, case, inputs)
    x = inputs.x.clone()
    x[2, 5, 1, 1] = torch.nan
    actual = run(op, case, inputs._replace(x=x))
    assert actual['y'][:, 5].isnan().all() and actual['var'][:, 5].isnan().all()
    others = [c for c in range(17) if c != 5]
    for name in ('y', 'grad_x'):
        assert torch.equal(actual[name][:, others], expected[name][:, others])


def test_x_is_all_that_is_kept_for_backward():
    case = Case(8, 33, 14, 14)
    inputs = as_dtype(inputs_of(case), torch.float32)
    parameters = [p.requires_grad_() for p in inputs.parameters()]
    kept = {}

    def note(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    dilations, eps = settings_of(case)
    x = inputs.x.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        op(x, inputs.weights, dilations, inputs.scales, inputs.shifts, eps)
    for tensor in (x, *parameters):
        del kept[tensor.data_ptr()]
    assert list(kept.values()) == [6 * 33] * 2  # mean and variance


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_gradients_of_gradients(dtype):
    case = Case(2, 3, 5, 7, K5)
    dilations, eps = settings_of(case)

    def penalty(function, inputs):
        x, *parameters = (t.detach().requires_grad_() for t in (inputs.x, *inputs.parameters()))
        weights, scales, shifts = (parameters[i * 3 : (i + 1) * 3] for i in range(3))
        y, _, _ = function(x, weights, dilations, scales, shifts, eps)
        first = torch.autograd.grad(y, [x, *weights], inputs.grad_output, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), [x, *weights, *scales])

    inputs = inputs_of(case)
    expected = penalty(naive.dilated_reparam, inputs)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for actual, right in zip(penalty(op, as_dtype(inputs, dtype)), expected, strict=True):
        assert distance(actual, right) <= tolerance * right.norm()


@pytest.mark.parametrize('create_graph', [False, True])
def test_an_input_may_follow_from_another(create_graph):
    """As where one block's output, which depends on its weights, is its next input."""
    case = Case(2, 3, 5, 7, K5)
    dilations, eps = settings_of(case)
    grads = []
    for function in (op, naive.dilated_reparam):
        inputs = inputs_of(case) if function is not op else as_dtype(inputs_of(case), torch.float32)
        x, *parameters = (t.detach().requires_grad_() for t in (inputs.x, *inputs.parameters()))
        weights, scales, shifts = (parameters[i * 3 : (i + 1) * 3] for i in range(3))
        y = x
        for _ in '12':
            y, _, _ = function(y, weights, dilations, scales, shifts, eps)
        leaves = [x, *weights, *scales]
        grads.append(torch.autograd.grad(y, leaves, inputs.grad_output, create_graph=create_graph))
    for actual, right in zip(*grads, strict=True):
        assert distance(actual, right) <= 1e-5 * right.norm()


@pytest.mark.parametrize('transform', ['is_grads_batched', 'vmap'])
def test_batches_of_gradients(transform):
    case = Case(2, 3, 5, 7, K5)
    inputs, (dilations, eps) = as_dtype(inputs_of(case), torch.float32), settings_of(case)
    leaves = [t.detach().requires_grad_() for t in (inputs.x, *inputs.parameters())]
    x, *parameters = leaves
    y, _, _ = op(x, parameters[:3], dilations, parameters[3:6], parameters[6:], eps)
    batch = torch.stack([inputs.grad_output, inputs.grad_output.flip(0), y.detach()])

    def grads_of(grad_output, **options):
        return torch.autograd.grad(y, leaves, grad_output, retain_graph=True, **options)

    if transform == 'vmap':
        actual = torch.func.vmap(grads_of)(batch)
    else:
        actual = grads_of(batch, is_grads_batched=True)
    single = map(torch.stack, zip(*map(grads_of, batch), strict=True))
    for grad, expected in zip(actual, single, strict=True):
        assert not grad.requires_grad
        assert distance(grad, expected) <= 1e-5 * expected.norm()


def test_frozen_parameters_have_no_gradient():
    case = Case(2, 3, 5, 7, K5)
    inputs, (dilations, eps) = as_dtype(inputs_of(case), torch.float32), settings_of(case)
    weights = [weight.clone().requires_grad_() for weight in inputs.weights]
    y, mean, var = op(inputs.x, weights, dilations, inputs.scales, inputs.shifts, eps)
    assert not mean.requires_grad and not var.requires_grad
    y.backward(inputs.grad_output)
    expected = expected_of(case)
    for b, weight in enumerate(weights):
        right = expected[f'gradient of weight {b}']
        assert distance(weight.grad, right) <= 1e-5 * right.norm()


SMALL = Case(2, 6, 4, 5, K5)


def operator_arguments(case=SMALL, dtype=torch.float32) -> list:
    inputs, (dilations, eps) = as_dtype(inputs_of(case), torch.float32), settings_of(case)
    vectors = [list(tensors) for tensors in inputs[1:4]]
    return [inputs.x.to(dtype), vectors[0], dilations, *vectors[1:], eps]


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_opcheck(dtype, channels_last):
    arguments = operator_arguments(dtype=dtype)
    if channels_last:
        arguments[0] = arguments[0].contiguous(memory_format=torch.channels_last)
    operators = torch.ops.unireplknet
    torch.library.opcheck(operators.dilated_reparam, arguments)
    _, mean, var = operators.dilated_reparam(*arguments)
    x, weights, dilations, scales, _, eps = arguments
    torch.library.opcheck(
        operators.dilated_reparam_backward,
        [torch.ones_like(x), x, weights, dilations, scales, mean, var, eps],
    )
    x.requires_grad_()
    for parameter in (*weights, *scales):
        parameter.requires_grad_()
    torch.library.opcheck(operators.dilated_reparam, arguments)


def test_operator_errors_name_the_value():
    operator = torch.ops.unireplknet.dilated_reparam
    for index, value, message in (
        (0, torch.zeros(2, 6, 4), r'x must have the shape \(N, C, H, W\), got \(2, 6, 4\)'),
        (
            0,
            torch.zeros(1, 6, 1, 1),
            r'more than one value a channel, got x of the shape \(1, 6, 1, 1\)',
        ),
        (0, torch.zeros(2, 6, 4, 5).double(), 'float64 is not supported: use float32'),
        (1, [torch.zeros(6, 1, 3, 3)] * 2, 'must have one entry a branch'),
        (
            1,
            [torch.zeros(6, 1, 4, 4)] * 3,
            r'the shape \(6, 1, k, k\) with an odd k, got \(6, 1, 4, 4\)',
        ),
        (1, [torch.zeros(6, 1, 3, 3).half()] * 3, 'a weight has dtype Half, not float32'),
        (2, [1, 0, 1], 'a dilation must be at least 1, got 0'),
        (3, [torch.zeros(7)] * 3, r'a scale must have the shape \(6\), got \(7\)'),
        (4, [torch.zeros(6, 1)] * 3, r'a shift must have the shape \(6\), got \(6, 1\)'),
        (4, [torch.zeros(6)] * 2, 'shifts must have one entry a branch'),
    ):
        arguments = operator_arguments()
        arguments[index] = value
        with pytest.raises(RuntimeError, match=message):
            operator(*arguments)


def test_flops():
    case = Case(2, 6, 4, 5, K5)
    with FlopCounterMode(display=False) as counter:
        run(op, case, as_dtype(inputs_of(case), torch.float32))
    assert counter.get_total_flops() == 3 * 2 * (2 * 6 * 4 * 5) * (25 + 9 + 9)


def test_autocast_rounds_maps_alone():
    case = Case(4, 20, 14, 14)
    inputs, expected = as_dtype(inputs_of(case), torch.float32), expected_of(case)
    results = []
    for function in (op, torch.ops.unireplknet.dilated_reparam, plain):
        with torch.autocast('cpu', torch.bfloat16):
            y, mean, var = function(*operator_arguments(case))
        assert y.dtype == torch.bfloat16 and mean.dtype == var.dtype == torch.float32
        results.append(distance(y, expected['y']) / expected['y'].norm().item())
    assert results[0] == results[1] <= results[2] <= 0.01
    with torch.autocast('cpu', torch.bfloat16):
        gradients = run(op, case, inputs._replace(grad_output=inputs.grad_output.bfloat16()))
    assert all(tensor.dtype == torch.float32 for name, tensor in gradients.items() if name != 'y')


@pytest.mark.parametrize(
    'side', [28, 56]
)  # whose branches are held all at once, and a few images at a time
def test_variance_where_the_centre_of_the_first_image_is_unlike_all_else(side):
    x, sizes = torch.zeros(8, 16, side, side), (13, 5, 3)
    x[0, :, side // 2, side // 2] = 1
    weights = [0.1 * torch.randn(16, 1, size, size) for size in sizes]
    ones, zeros = [torch.ones(16)] * 3, [torch.zeros(16)] * 3
    arguments = [(1, 1, 2), ones, zeros, [1e-5] * 3]
    y, _, var = dilated_reparam(x, weights, *arguments, implementation='op')
    wide = [[tensor.double() for tensor in tensors] for tensors in (weights, ones, zeros)]
    expected = dilated_reparam(x.double(), wide[0], (1, 1, 2), *wide[1:], [1e-5] * 3)
    torch.testing.assert_close(var.double(), expected[2], rtol=1e-5, atol=0)
    torch.testing.assert_close(y.double(), expected[0], rtol=1e-5, atol=1e-5)


# The choice.


def is_taken(case: Case, dtype=torch.float32, weight_dtype=None, x=None) -> bool:
    inputs, (dilations, eps) = as_dtype(inputs_of(case), dtype), settings_of(case)
    weights = [weight.to(weight_dtype or dtype) for weight in inputs.weights]
    x = inputs.x if x is None else x
    taken = dilated_reparam_takes_op(x, weights, (*inputs.scales, *inputs.shifts))
    with RecordedCalls() as calls:
        dilated_reparam(x, weights, dilations, inputs.scales, inputs.shifts, eps)
    assert ('dilated_reparam' in calls.names) == taken
    return taken


@pytest.fixture(autouse=True)
def processor_that_was_measured(monkeypatch):
    monkeypatch.delenv(functional.FORCE_VARIABLE, raising=False)
    monkeypatch.setattr(choice, 'instruction_set', lambda: 'avx2')


LARGE = Case(2, 40, 14, 14)


def test_auto_takes_the_op_where_it_was_measured(monkeypatch):
    assert is_taken(LARGE) and is_taken(LARGE, torch.bfloat16) and is_taken(LARGE, torch.float16)
    assert not is_taken(LARGE, torch.float64)
    with torch.autocast('cpu', torch.bfloat16):
        assert is_taken(LARGE)
    assert all(is_taken(LARGE._replace(c=count)) for count in (12, 16, 24, 36))
    assert not any(is_taken(LARGE._replace(c=count)) for count in (4, 11, 17, 33))
    monkeypatch.setattr(choice, 'instruction_set', lambda: 'portable')
    assert not is_taken(LARGE)


def test_auto_leaves_large_maps_to_convolutions_that_multiply_pairs(monkeypatch):
    large, small = torch.ones(1, 24, 91, 91), torch.ones(2, 24, 64, 64)

    def takes(x, size=13, dtype=torch.bfloat16):
        weights = [torch.ones(24, 1, k, k, dtype=dtype) for k in (size, 3)]
        return dilated_reparam_takes_op(x.to(dtype), weights, [torch.ones(24)] * 4)

    assert takes(large)
    monkeypatch.setattr(choice, 'instruction_set', lambda: 'avx512_bf16')
    assert not takes(large) and takes(small)
    assert takes(large, size=7) and takes(large, size=31) and takes(large, dtype=torch.float32)


def test_auto_follows_the_convolutions(monkeypatch):
    monkeypatch.setenv(dispatch.FORCE_VARIABLE, 'native')
    dispatch.clear_cache()
    assert not is_taken(LARGE)


def test_auto_is_native_without_the_library(monkeypatch):
    monkeypatch.setattr(choice, 'missing_library', lambda: 'not built')
    inputs = as_dtype(inputs_of(LARGE), torch.float32)
    assert not is_taken(LARGE)
    with pytest.raises(OpUnavailableError, match='but the op cannot run here: not built'):
        run(op, LARGE, inputs)


def test_other_dtypes_of_weights_are_left_to_pytorch():
    with pytest.raises(RuntimeError, match='type'):
        is_taken(LARGE, torch.float32, torch.bfloat16)


def test_one_value_a_channel_is_the_error_of_batch_norm():
    with pytest.raises(ValueError, match='Expected more than 1 value per channel when training'):
        is_taken(Case(1, 40, 1, 1, K5))


def test_auto_is_native_under_transforms():
    inputs, (dilations, eps) = as_dtype(inputs_of(LARGE), torch.float32), settings_of(LARGE)

    def loss(x):
        y, _, _ = dilated_reparam(x, inputs.weights, dilations, inputs.scales, inputs.shifts, eps)
        return (y * inputs.grad_output).sum()

    right = expected_of(LARGE)['grad_x']
    assert distance(torch.func.grad(loss)(inputs.x), right) <= 1e-5 * right.norm()


@pytest.mark.parametrize('forced', ['native', 'op'])
def test_environment_forces(monkeypatch, forced):
    monkeypatch.setenv(functional.FORCE_VARIABLE, forced)
    assert is_taken(LARGE) == is_taken(Case(1, 1, 2, 3, K5)) == (forced == 'op')


def test_unknown_values_are_errors(monkeypatch):
    arguments = operator_arguments()
    with pytest.raises(
        ArgumentError, match="implementation='fast' is not known: choose one of auto"
    ):
        dilated_reparam(*arguments, implementation='fast')
    for index, value, message in (
        (0, torch.zeros(2, 6, 4), r'x must have the shape \(N, C, H, W\), got \(2, 6, 4\)'),
        (1, [torch.zeros(6, 1, 3, 5)] * 3, r'with an odd k, got \(6, 1, 3, 5\)'),
        (2, [1, 2], 'must have one entry a branch, got 3, 2, 3, 3, 3'),
        (2, [1, 0, 1], 'a dilation must be at least 1, got 0'),
        (4, [torch.zeros(5)] * 3, r'a shift must have the shape \(6,\), got \(5,\)'),
    ):
        wrong = list(arguments)
        wrong[index] = value
        with pytest.raises(ArgumentError, match=message):
            dilated_reparam(*wrong)
    monkeypatch.setenv(functional.FORCE_VARIABLE, 'fast')
    with pytest.raises(ArgumentError, match='UNIREPLKNET_DILATED_REPARAM=fast is not known'):
        dilated_reparam(*arguments)


# Recorded graphs.


class Block(nn.Module):
    """The smallest module of its kind."""

    def __init__(self):
        super().__init__()
        inputs = as_dtype(inputs_of(LARGE), torch.float32)
        self.weights, self.scales, self.shifts = (nn.ParameterList(list(t)) for t in inputs[1:4])

    def forward(self, x: Tensor) -> Tensor:
        dilations, eps = settings_of(LARGE)
        y, mean, var = dilated_reparam(
            x, list(self.weights), dilations, list(self.scales), list(self.shifts), eps
        )
        return y + 0 * (mean + var).sum()


def gradients(function, module: Block, x: Tensor) -> list[Tensor]:
    return torch.autograd.grad(function(x).square().sum(), list(module.parameters()))


def test_compiled_in_one_graph_with_the_op():
    from torch._dynamo.backends.common import aot_autograd

    graphs = []

    def keep(graph, inputs):
        graphs.append(str(graph.graph))
        return graph.forward

    torch._dynamo.reset()
    module = Block()
    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    compiled = torch.compile(module, backend=backend, fullgraph=True, dynamic=True)
    for shape in ((2, 40, 8, 9), (3, 40, 11, 7)):
        x = torch.randn(shape)
        for actual, right in zip(
            gradients(compiled, module, x), gradients(module, module, x), strict=True
        ):
            torch.testing.assert_close(
                actual, right, rtol=1e-5, atol=1e-5 * right.abs().max().item()
            )
    assert len(graphs) == 2
    assert 'unireplknet.dilated_reparam.' in graphs[0]
    assert 'unireplknet.dilated_reparam_backward.' in graphs[1]
    assert not any('aten.convolution' in graph for graph in graphs)


@pytest.mark.parametrize('strict', [False, True])
@torch.no_grad()
def test_exported_without_the_op(strict):
    module, x = Block(), torch.randn(2, 40, 8, 9)
    program = torch.export.export(module, (x,), strict=strict)
    assert 'unireplknet' not in str(program.graph_module.code)
    torch.testing.assert_close(program.module()(x), module(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_traced_without_the_op():
    module, x = Block(), torch.randn(2, 40, 8, 9)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # F.batch_norm's, about its check of the batch's size
        traced = torch.jit.trace(module, x)
    assert 'unireplknet::' not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), module(x), rtol=1e-4, atol=1e-4)
