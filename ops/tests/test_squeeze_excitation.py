"""Squeeze-and-Excitation's factor as one op: against `naive.py` in float64, and in recorded graphs."""

import functools
import warnings

import pytest
import torch
from op_cases import (
    ISAS,
    LAYOUTS,
    RecordedCalls,
    check_instruction_set,
    reason_to_skip,
    relative_error,
    start_python,
    with_layout,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unireplknet_ops import choice, squeeze_excitation
from unireplknet_ops.errors import ArgumentError, OpUnavailableError
from unireplknet_ops.feedforward import naive
from unireplknet_ops.feedforward.functional import FORCE_VARIABLE

pytestmark = pytest.mark.skipif(
    reason_to_skip('cpu') is not None, reason='no compiled op: the operator is not defined'
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# (N, C, H, W) and the squeezed width: lanes that are and are not filled, one and several vectors at a time,
# chunks of positions and tasks of rows.
SHAPES = (
    (1, 1, 1, 1, 1),
    (2, 3, 5, 7, 1),
    (3, 17, 4, 4, 5),
    (1, 80, 7, 7, 20),
    (4, 100, 14, 13, 33),
    (2, 48, 31, 40, 12),
    (1, 5, 70, 66, 40),
    (2, 700, 2, 3, 300),
    (0, 8, 4, 4, 2),
)


@functools.cache
def inputs_of(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Float64 numbers that every tested dtype can hold. Means of the map are not near zero."""
    batch, channels, height, width, squeezed = shape
    generator = torch.Generator().manual_seed(sum(shape))

    def numbers(*sizes, scale=1.0):
        return (scale * torch.randn(sizes, generator=generator)).bfloat16().half().double()

    return dict(
        x=(numbers(batch, channels, height, width) + numbers(batch, channels, 1, 1))
        .bfloat16()
        .half()
        .double(),
        weight1=numbers(squeezed, channels, scale=channels**-0.5),
        bias1=numbers(squeezed),
        weight2=numbers(channels, squeezed, scale=2 * squeezed**-0.5),
        bias2=numbers(channels),
    )


def as_dtype(shape, dtype=torch.float32, layout='channels_last') -> dict[str, Tensor]:
    given = {name: tensor.to(dtype) for name, tensor in inputs_of(shape).items()}
    return given | dict(x=with_layout(given['x'], layout))


def check(shape, dtype, layout='channels_last', without=()) -> None:
    given = as_dtype(shape, dtype, layout) | dict.fromkeys(without)
    factor = squeeze_excitation(**given, implementation='op')
    assert factor.dtype == torch.float32 and factor.shape == shape[:2]
    expected = naive.squeeze_excitation(**inputs_of(shape) | dict.fromkeys(without))
    # What is given is exact, and nothing is rounded to 16 bits on the way.
    assert ((factor - expected).abs() <= 2e-6).all()  # NaN is wrong


@pytest.mark.usefixtures('nan_in_new_memory')
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_against_the_formulas(shape, dtype):
    check(shape, dtype)


CHECK_ALL = """
import torch
from test_squeeze_excitation import DTYPES, SHAPES, check
torch.use_deterministic_algorithms(True, warn_only=True)  # new memory holds NaN
for shape in SHAPES:
    for dtype in DTYPES:
        check(shape, dtype)
print(torch.ops.unireplknet.cpu_isa())
"""


@pytest.mark.parametrize('isa', ISAS)
def test_every_instruction_set(isa):
    check_instruction_set(isa, start_python(CHECK_ALL, UNIREPLKNET_CPU_ISA=isa))


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_strides(layout, dtype):
    check((2, 19, 6, 9, 5), dtype, layout)


@pytest.mark.parametrize('without', [('bias1',), ('bias2',), ('bias1', 'bias2')], ids=str)
def test_without_the_optional_ones(without):
    check((3, 17, 4, 4, 5), torch.float32, without=without)


def test_many_positions_lose_nothing():
    """Of means far from zero, whose sums in float32 would."""
    x = (torch.randn(1, 16, 300, 400) + 1000).contiguous(memory_format=torch.channels_last)
    factor = squeeze_excitation(
        x, torch.eye(16), torch.full((16,), -1000.0), 50 * torch.eye(16), None, implementation='op'
    )
    expected = naive.squeeze_excitation(
        x.double(),
        torch.eye(16).double(),
        torch.full((16,), -1000.0).double(),
        50 * torch.eye(16).double(),
        None,
    )
    assert (factor - expected).abs().max() <= 1e-3  # the mean itself is rounded by up to 3e-5


def test_runs_and_threads_agree_to_the_bit():
    given = as_dtype((2, 700, 2, 3, 300)) | as_dtype((2, 700, 2, 3, 300))
    threads = torch.get_num_threads()
    outputs = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            outputs.append(squeeze_excitation(**given, implementation='op'))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(output, outputs[0]) for output in outputs)


@pytest.mark.parametrize('number', [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_as_in_the_modules(number):
    given = as_dtype((4, 100, 14, 13, 33))
    given['x'][2, 5, 1, 1] = number
    expected = squeeze_excitation(**given, implementation='native')
    actual = squeeze_excitation(**given, implementation='op')
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_opcheck():
    for arguments in (as_dtype((3, 17, 4, 4, 5)), as_dtype((2, 3, 5, 7, 1), torch.bfloat16)):
        torch.library.opcheck(torch.ops.unireplknet.squeeze_excitation, list(arguments.values()))
    arguments |= dict(bias1=None, bias2=None)
    torch.library.opcheck(torch.ops.unireplknet.squeeze_excitation, list(arguments.values()))


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('x', torch.zeros(3, 17, 4), r'x must have the shape \(N, C, H, W\), got \(3, 17, 4\)'),
        ('x', torch.zeros(3, 17, 0, 4), 'x has no positions to take the mean of'),
        (
            'weight1',
            torch.zeros(5, 16),
            r'weight1 must have the shape \(squeezed, 17\), got \(5, 1',
        ),
        ('weight2', torch.zeros(17, 6), r'weight2 must have the shape \(17, 5\), got \(17, 6\)'),
        ('bias1', torch.zeros(6), r'bias1 must have the shape \(5\), got \(6\)'),
        ('bias2', torch.zeros(17).half(), 'bias2 has dtype Half but x has Float'),
    ],
)
def test_operator_errors_name_the_value(name, value, message):
    arguments = as_dtype((3, 17, 4, 4, 5)) | {name: value}
    with pytest.raises(RuntimeError, match=message):
        torch.ops.unireplknet.squeeze_excitation(*arguments.values())


def test_float64_is_an_error_of_the_operator():
    with pytest.raises(RuntimeError, match='float64 is not supported: use float32'):
        torch.ops.unireplknet.squeeze_excitation(*inputs_of((3, 17, 4, 4, 5)).values())


def test_flops():
    given = as_dtype((3, 17, 4, 4, 5))
    counts = []
    for implementation in ('op', 'native'):
        with FlopCounterMode(display=False) as counter:
            squeeze_excitation(**given, implementation=implementation)
        counts.append(counter.get_total_flops())
    assert counts == [2 * 2 * 3 * 17 * 5] * 2


def test_autocast_computes_in_its_dtype():
    shape = (4, 100, 14, 13, 33)
    given = as_dtype(shape)
    with torch.autocast('cpu', torch.bfloat16):
        factors = [
            squeeze_excitation(**given, implementation='op'),
            torch.ops.unireplknet.squeeze_excitation(*given.values()),
        ]
    rounded = as_dtype(shape, torch.bfloat16)
    expected = squeeze_excitation(**rounded, implementation='op')
    assert all(torch.equal(factor, expected) for factor in factors)


# The choice.


@pytest.fixture(autouse=True)
def processor_that_was_measured(monkeypatch):
    monkeypatch.delenv(FORCE_VARIABLE, raising=False)
    monkeypatch.setattr(choice, 'instruction_set', lambda: 'avx2')


def taken(given: dict[str, Tensor]) -> str:
    with RecordedCalls() as calls:
        squeeze_excitation(**given)
    return 'op' if 'squeeze_excitation' in calls.names else 'native'


def test_auto_takes_the_op_where_it_was_measured(monkeypatch):
    shape = (3, 17, 4, 4, 5)
    assert [taken(as_dtype(shape, dtype)) for dtype in DTYPES] == ['op'] * 3
    assert taken(as_dtype(shape, torch.float64)) == 'native'
    assert taken(as_dtype(shape, layout='contiguous')) == 'native'
    assert taken(as_dtype((1, 1500, 2, 2, 350))) == 'native'  # 525,000 numbers
    given = as_dtype(shape)
    weight = nn.Parameter(given['weight1'])
    assert taken(given | dict(weight1=weight)) == 'native'
    with torch.no_grad():
        assert taken(given | dict(weight1=weight)) == 'op'
    monkeypatch.setattr(choice, 'instruction_set', lambda: 'portable')
    assert taken(given) == 'native'


@pytest.mark.parametrize('forced', ['native', 'op'])
def test_environment_forces(monkeypatch, forced):
    monkeypatch.setenv(FORCE_VARIABLE, forced)
    for layout in ('contiguous', 'channels_last'):
        assert taken(as_dtype((3, 17, 4, 4, 5), layout=layout)) == forced


def test_auto_is_native_without_the_library(monkeypatch):
    monkeypatch.setattr(choice, 'missing_library', lambda: 'not built')
    given = as_dtype((3, 17, 4, 4, 5))
    assert taken(given) == 'native'
    expected = naive.squeeze_excitation(**inputs_of((3, 17, 4, 4, 5)))
    assert relative_error(squeeze_excitation(**given), expected) <= 1e-6
    with pytest.raises(OpUnavailableError, match='but the op cannot run here: not built'):
        squeeze_excitation(**given, implementation='op')


def test_auto_is_native_under_transforms():
    given = as_dtype((3, 17, 4, 4, 5))
    x = given.pop('x')
    batched = torch.func.vmap(lambda x: squeeze_excitation(x, **given))(x[None])
    torch.testing.assert_close(batched[0], squeeze_excitation(x, **given), rtol=1e-5, atol=1e-6)


def test_wrong_arguments_are_errors():
    given = as_dtype((3, 17, 4, 4, 5))
    with pytest.raises(ArgumentError, match="implementation='fast' is not known"):
        squeeze_excitation(**given, implementation='fast')
    with pytest.raises(ArgumentError, match=r'bias1 must have the shape \(5,\), got \(6,\)'):
        squeeze_excitation(**given | dict(bias1=torch.zeros(6)))
    with pytest.raises(ArgumentError, match=r'weight1 must have the shape \(squeezed, 17\), got'):
        squeeze_excitation(**given | dict(weight1=torch.zeros(5, 18)))
    given['weight1'].requires_grad_()
    with pytest.raises(OpUnavailableError, match='it has no derivative'):
        squeeze_excitation(**given, implementation='op')


# Recorded graphs.


class Factor(nn.Module):
    """The smallest module of its kind."""

    def __init__(self, channels=40, squeezed=10):
        super().__init__()
        self.down = nn.Linear(channels, squeezed)
        self.up = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        down, up = self.down, self.up
        return squeeze_excitation(x, down.weight, down.bias, up.weight, up.bias)


def channels_last_map(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_compiled_in_one_graph_with_the_op():
    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.graph))
        return graph.forward

    torch._dynamo.reset()
    module = Factor()
    compiled = torch.compile(module, backend=backend, fullgraph=True, dynamic=True)
    for shape in ((2, 40, 8, 9), (3, 40, 11, 7)):
        x = channels_last_map(*shape)
        assert torch.equal(compiled(x), module(x))
    assert len(graphs) == 1 and 'unireplknet.squeeze_excitation' in graphs[0]


@torch.no_grad()
def test_graphs_for_elsewhere_hold_no_op():
    module, x = Factor(), channels_last_map(2, 40, 8, 9)
    program = torch.export.export(module, (x,))
    assert 'unireplknet' not in str(program.graph_module.code)
    torch.testing.assert_close(program.module()(x), module(x), rtol=1e-5, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter('error', torch.jit.TracerWarning)
        traced = torch.jit.trace(module, x)
    assert 'unireplknet::' not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), module(x), rtol=1e-5, atol=1e-6)
