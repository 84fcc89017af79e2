"""The feed-forward op: against `naive.py` in float64, PyTorch's own form, and in recorded graphs."""

import functools
import warnings

import pytest
import torch
import torch.nn.functional as F
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

from unireplknet_ops import choice, feed_forward, feed_forward_takes_op
from unireplknet_ops.errors import ArgumentError, OpUnavailableError
from unireplknet_ops.feedforward import functional, naive
from unireplknet_ops.feedforward.functional import FORCE_VARIABLE

pytestmark = pytest.mark.skipif(
    reason_to_skip('cpu') is not None, reason='no compiled op: the operator is not defined'
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# (N, C, H, W) and the hidden width: panels of 1 to 14 rows, lanes that are and are not filled, several
# chunks of rows, parts of the columns and groups of images.
SHAPES = (
    (1, 1, 1, 1, 4),
    (1, 1, 1, 1, 1),
    (2, 3, 5, 7, 12),
    (3, 16, 1, 13, 64),
    (2, 17, 15, 1, 68),
    (1, 40, 7, 7, 160),
    (4, 33, 3, 3, 130),
    (2, 96, 14, 14, 384),
    (1, 80, 29, 31, 320),
    (1, 5, 3, 3, 700),
    (1, 700, 2, 3, 5),
    (3, 8, 120, 121, 32),
    (9, 4, 90, 91, 30),
    (0, 4, 6, 7, 16),
)


@functools.cache
def inputs_of(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Float64 numbers that every tested dtype can hold."""
    batch, channels, height, width, hidden = shape
    generator = torch.Generator().manual_seed(hash(shape) % 2**31)

    def numbers(*sizes, scale=1.0):
        return (scale * torch.randn(sizes, generator=generator)).bfloat16().half().double()

    return dict(
        x=numbers(batch, channels, height, width),
        input_scale=numbers(batch, channels).abs(),
        weight1=numbers(hidden, channels, scale=channels**-0.5),
        bias1=numbers(hidden, scale=0.5),
        gamma=numbers(hidden),
        beta=numbers(hidden),
        weight2=numbers(channels, hidden, scale=hidden**-0.5),
        output_scale=numbers(channels),
        bias2=numbers(channels),
        residual=numbers(batch, channels, height, width),
    )


def as_dtype(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in inputs.items()}


# The most an output may differ from the formulas, as a part of the same formulas with every number taken
# without its sign; and the most all outputs together may, in the Euclidean norm.
TOLERANCES = {
    torch.float32: (1e-6, 1e-6),
    torch.bfloat16: (2**-7, 5e-3),
    torch.float16: (2**-10, 5e-4),
}


def check(shape, dtype, layout='contiguous', residual_layout=None, without=()) -> None:
    """Compare the op with the formulas in float64, and its error with that of PyTorch's operators."""
    inputs = {name: tensor for name, tensor in inputs_of(shape).items() if name not in without}
    given = as_dtype(inputs, dtype)
    given['x'] = with_layout(given['x'], layout)
    if 'residual' in given:
        given['residual'] = with_layout(given['residual'], residual_layout or layout)
    options = dict.fromkeys(without)
    output = feed_forward(**given, **options, implementation='op')
    native = feed_forward(**given, **options, implementation='native')
    assert output.dtype == native.dtype == dtype
    assert output.stride() == native.stride()
    expected = naive.feed_forward(**inputs, **options)
    magnitude = naive.feed_forward(**{k: tensor.abs() for k, tensor in inputs.items()}, **options)
    of_one, of_all = TOLERANCES[dtype]
    assert ((output - expected).abs() <= of_one * magnitude).all()  # NaN is wrong
    if output.numel() > 100:
        assert relative_error(output, expected) <= of_all
        if dtype != torch.float32:  # rounded twice, where PyTorch rounds after every step
            assert relative_error(output, expected) <= relative_error(native, expected)


@pytest.mark.usefixtures('nan_in_new_memory')
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_against_the_formulas(shape, dtype, layout):
    check(shape, dtype, layout)


CHECK_ALL = """
import torch
from test_feed_forward import DTYPES, SHAPES, check
torch.use_deterministic_algorithms(True, warn_only=True)  # new memory holds NaN
for shape in SHAPES:
    for dtype in DTYPES:
        for layout in ('contiguous', 'channels_last'):
            check(shape, dtype, layout)
print(torch.ops.unireplknet.cpu_isa())
"""


@pytest.mark.parametrize('isa', ISAS)
def test_every_instruction_set(isa):
    check_instruction_set(isa, start_python(CHECK_ALL, UNIREPLKNET_CPU_ISA=isa))


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('residual_layout', ['contiguous', 'channels_last', 'sliced'])
def test_strides(layout, residual_layout):
    check((2, 19, 6, 9, 50), torch.float32, layout, residual_layout)


@pytest.mark.parametrize(
    'without',
    [
        ('input_scale',),
        ('bias1',),
        ('beta',),
        ('output_scale',),
        ('bias2',),
        ('residual',),
        ('input_scale', 'bias1', 'beta', 'output_scale', 'bias2', 'residual'),
    ],
    ids=str,
)
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_without_the_optional_ones(without, dtype):
    check((2, 24, 5, 6, 100), dtype, without=without)


def test_gelu_is_exact_to_rounding():
    """The op with identities for weights is GELU alone, on numbers of all sizes and both signs."""
    channels = 16
    small = torch.logspace(-30, 0, 2000)
    values = torch.cat([torch.linspace(-12, 12, 60000), small, -small, torch.tensor([-1e4, 1e4])])
    values = F.pad(values, (0, -len(values) % channels))
    x = values.reshape(1, channels, 1, -1)
    identity = torch.eye(channels)
    none = torch.zeros(channels)
    actual = feed_forward(x, identity, None, none, None, identity, None, implementation='op')
    error = (actual.double() - F.gelu(x.double())).abs()
    assert (error <= 3e-7 * x.abs().clamp(max=6)).all()
    assert error.max() <= 1.1e-6  # F.gelu in float32 reaches that


def test_runs_and_threads_agree_to_the_bit():
    given = as_dtype(inputs_of((1, 80, 29, 31, 320)), torch.float32)
    threads = torch.get_num_threads()
    outputs = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            outputs.append(feed_forward(**given, implementation='op'))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(output, outputs[0]) for output in outputs)


@pytest.mark.parametrize('number', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_what_is_not_finite_stays_in_its_image(dtype, number):
    """And makes all of it NaN there, as it does in the modules."""
    given = as_dtype(inputs_of((4, 33, 3, 3, 130)), dtype)
    expected = feed_forward(**given, implementation='op')
    given['x'] = given['x'].clone()
    given['x'][2, 5, 1, 1] = number
    assert feed_forward(**given, implementation='native')[2].isnan().all()
    actual = feed_forward(**given, implementation='op')
    assert actual[2].isnan().all()
    assert torch.equal(actual[[0, 1, 3]], expected[[0, 1, 3]])


def operator_arguments(dtype=torch.float32, shape=(2, 6, 4, 5, 20)) -> list[Tensor]:
    maps = ('x', 'weight1', 'weight2', 'residual')
    inputs = inputs_of(shape)
    return [tensor.to(dtype if name in maps else torch.float32) for name, tensor in inputs.items()]


@pytest.mark.parametrize('channels_last', [False, True])
def test_opcheck(channels_last):
    arguments = operator_arguments()
    if channels_last:
        arguments[0] = arguments[0].contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(torch.ops.unireplknet.feed_forward, arguments)
    bare = [a if i in (0, 2, 4, 6) else None for i, a in enumerate(arguments)]
    torch.library.opcheck(torch.ops.unireplknet.feed_forward, bare)
    of_16_bits = list(as_dtype(inputs_of((2, 6, 4, 5, 20)), torch.bfloat16).values())
    torch.library.opcheck(torch.ops.unireplknet.feed_forward, of_16_bits)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_vectors_of_16_bits_are_widened(dtype):
    arguments = operator_arguments(dtype)
    expected = torch.ops.unireplknet.feed_forward(*arguments)
    narrow = [tensor.to(dtype) for tensor in arguments]
    narrow[3] = torch.stack([narrow[3], narrow[3]], 1)[:, 1]  # strided
    assert torch.equal(torch.ops.unireplknet.feed_forward(*narrow), expected)


def test_operator_errors_name_the_value():
    operator = torch.ops.unireplknet.feed_forward
    for index, value, message in (
        (0, torch.zeros(2, 6, 4), r'x must have the shape \(N, C, H, W\), got \(2, 6, 4\)'),
        (2, torch.zeros(20, 7), r'weight1 must have the shape \(hidden, 6\), got \(20, 7\)'),
        (6, torch.zeros(6, 21), r'weight2 must have the shape \(6, 20\), got \(6, 21\)'),
        (4, torch.zeros(21), r'gamma must have the shape \(20\), got \(21\)'),
        (4, torch.zeros(20).double(), 'gamma has dtype Double, not float32'),
        (4, torch.zeros(20).half(), 'gamma has dtype Half, not float32'),
        (2, torch.zeros(20, 6).half(), 'weight1 has dtype Half but x has Float'),
        (9, torch.zeros(2, 6, 4, 4), r'residual must have the shape \(2, 6, 4, 5\) of x'),
    ):
        arguments = operator_arguments()
        arguments[index] = value
        with pytest.raises(RuntimeError, match=message):
            operator(*arguments)
    with pytest.raises(RuntimeError, match='float64 is not supported: use float32'):
        operator(*operator_arguments(torch.float64))


def test_flops():
    with FlopCounterMode(display=False) as counter:
        torch.ops.unireplknet.feed_forward(*operator_arguments())
    with FlopCounterMode(display=False) as native:
        feed_forward(
            **as_dtype(inputs_of((2, 6, 4, 5, 20)), torch.float32), implementation='native'
        )
    assert counter.get_total_flops() == native.get_total_flops() == 2 * 2 * (2 * 4 * 5) * 6 * 20


def test_autocast_computes_in_its_dtype():
    given = as_dtype(inputs_of((2, 24, 5, 6, 100)), torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        output = feed_forward(**given, implementation='op')
        operator = torch.ops.unireplknet.feed_forward(*operator_arguments())
        native = feed_forward(**given, implementation='native')
    assert output.dtype == native.dtype == torch.float32  # that of the residual
    assert operator.dtype == torch.bfloat16
    expected = naive.feed_forward(**inputs_of((2, 24, 5, 6, 100)))
    assert 1e-5 < relative_error(output, expected) <= 0.01


# The choice.


def large(dtype=torch.float32, **changes) -> dict[str, Tensor]:
    return as_dtype(inputs_of((1, 40, 7, 7, 160)), dtype) | changes


def taken(given: dict[str, Tensor]) -> str:
    with RecordedCalls() as calls:
        feed_forward(**given)
    name = 'op' if 'feed_forward' in calls.names else 'native'
    tensors = [tensor for key, tensor in given.items() if key != 'x']
    assert feed_forward_takes_op(given['x'], *tensors) == (name == 'op')
    return name


@pytest.fixture(autouse=True)
def processor_that_was_measured(monkeypatch):
    monkeypatch.delenv(FORCE_VARIABLE, raising=False)
    monkeypatch.setattr(choice, 'instruction_set', lambda: 'avx2')


def test_auto_takes_the_op_where_it_was_measured(monkeypatch):
    assert [taken(large(dtype)) for dtype in DTYPES] == ['op'] * 3
    assert taken(large(torch.float64)) == 'native'
    assert taken(as_dtype(inputs_of((4, 33, 3, 3, 130)), torch.float32)) == 'native'  # 36 rows
    assert taken(as_dtype(inputs_of((3, 8, 120, 121, 32)), torch.float32)) == 'native'
    weight = nn.Parameter(large()['weight1'])
    assert taken(large(weight1=weight)) == 'native'
    with torch.no_grad():
        assert taken(large(weight1=weight)) == 'op'
    assert taken(large(weight1=weight.requires_grad_(False))) == 'op'
    monkeypatch.setattr(choice, 'instruction_set', lambda: 'portable')
    assert taken(large()) == 'native'


@pytest.mark.parametrize(
    ('shape', 'dtype', 'is_taken'),
    [
        ((64, 320, 1, 1), torch.float32, False),
        ((64, 320, 1, 1), torch.bfloat16, False),
        ((64, 320, 1, 2), torch.float32, True),
        ((1, 1280, 7, 7), torch.float32, True),
        ((1, 1536, 7, 7), torch.float32, False),
        ((8, 1536, 7, 7), torch.float32, True),
        ((8, 1536, 7, 7), torch.bfloat16, False),
    ],
)
def test_auto_leaves_what_reads_weights_too_often(shape, dtype, is_taken):
    x = torch.empty(1, dtype=dtype).expand(shape)
    weights = [
        x.new_empty(1).expand(sizes)
        for sizes in ((4 * shape[1], shape[1]), (shape[1], 4 * shape[1]))
    ]
    assert feed_forward_takes_op(x, *weights) == is_taken
    with torch.autocast('cpu', torch.bfloat16):
        assert feed_forward_takes_op(x, *weights) == (is_taken and shape[1] < 1536)


def test_auto_leaves_no_float16_to_processors_that_convert(monkeypatch):
    x = torch.empty(64, 320, 1, 1, dtype=torch.float16)
    monkeypatch.setattr(functional, 'has_float16_arithmetic', lambda: False)
    assert feed_forward_takes_op(x, x.new_empty(1280, 320))
    monkeypatch.setattr(functional, 'has_float16_arithmetic', lambda: True)
    assert not feed_forward_takes_op(x, x.new_empty(1280, 320))


def test_auto_is_native_without_the_library(monkeypatch):
    monkeypatch.setattr(choice, 'missing_library', lambda: 'not built')
    assert not feed_forward_takes_op(large()['x'])
    output = feed_forward(**large())
    assert relative_error(output, naive.feed_forward(**large(torch.float64))) < 1e-6
    with pytest.raises(OpUnavailableError, match='but the op cannot run here: not built'):
        feed_forward(**large(), implementation='op')


def test_auto_is_native_under_transforms():
    given = large()
    x = given.pop('x')
    batched = torch.func.vmap(lambda x: feed_forward(x, **given))(x[None])
    torch.testing.assert_close(batched[0], feed_forward(x, **given), rtol=1e-4, atol=1e-5)
    assert not torch.func.vmap(lambda x: torch.tensor(feed_forward_takes_op(x)))(x[None]).any()


@pytest.mark.parametrize('forced', ['native', 'op'])
def test_environment_forces(monkeypatch, forced):
    monkeypatch.setenv(FORCE_VARIABLE, forced)
    small = as_dtype(inputs_of((4, 33, 3, 3, 130)), torch.float32)
    assert taken(small) == taken(large()) == forced


def test_unknown_values_are_errors(monkeypatch):
    with pytest.raises(
        ArgumentError, match="implementation='fast' is not known: choose one of auto"
    ):
        feed_forward(**large(), implementation='fast')
    with pytest.raises(ArgumentError, match=r'bias2 must have the shape \(40,\), got \(41,\)'):
        feed_forward(**large(bias2=torch.zeros(41)))
    monkeypatch.setenv(FORCE_VARIABLE, 'fast')
    with pytest.raises(ArgumentError, match='UNIREPLKNET_FEED_FORWARD=fast is not known'):
        feed_forward(**large())


@pytest.mark.parametrize('reason', ['a gradient', 'float64'])
def test_op_that_cannot_run_says_why(reason):
    given = large(torch.float64) if reason == 'float64' else large()
    if reason == 'a gradient':
        given['x'] = given['x'].clone().requires_grad_()
    message = {'a gradient': 'it has no derivative', 'float64': 'compute in torch.float64'}[reason]
    with pytest.raises(OpUnavailableError, match=message):
        feed_forward(**given, implementation='op')


# Recorded graphs.


class FeedForward(nn.Module):
    """The smallest module of its kind."""

    def __init__(self, channels=40, hidden=160):
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.gamma = nn.Parameter(torch.randn(hidden))

    def forward(self, x: Tensor) -> Tensor:
        linear1, linear2 = self.linear1, self.linear2
        return feed_forward(
            x,
            linear1.weight,
            linear1.bias,
            self.gamma,
            None,
            linear2.weight,
            linear2.bias,
            residual=x,
        )


@torch.no_grad()
def test_compiled_in_one_graph_with_the_op():
    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.graph))
        return graph.forward

    torch._dynamo.reset()
    module = FeedForward()
    compiled = torch.compile(module, backend=backend, fullgraph=True, dynamic=True)
    for shape in ((2, 40, 8, 9), (3, 40, 11, 7)):
        x = torch.randn(shape)
        assert torch.equal(compiled(x), module(x))
    assert len(graphs) == 1 and 'unireplknet.feed_forward' in graphs[0]


@pytest.mark.parametrize('strict', [False, True])
@torch.no_grad()
def test_exported_without_the_op(strict):
    module, x = FeedForward(), torch.randn(2, 40, 8, 9)
    program = torch.export.export(module, (x,), strict=strict)
    assert 'unireplknet' not in str(program.graph_module.code)
    torch.testing.assert_close(program.module()(x), module(x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_traced_without_the_op():
    module, x = FeedForward(), torch.randn(2, 40, 8, 9)
    with warnings.catch_warnings():
        warnings.simplefilter('error', torch.jit.TracerWarning)
        traced = torch.jit.trace(module, x)
    assert 'unireplknet::' not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), module(x), rtol=1e-4, atol=1e-5)
