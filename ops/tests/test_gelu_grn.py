"""GELU and GRN as one op: output and gradients against `naive.py` in float64, and in recorded graphs."""

import functools
import warnings

import pytest
import torch
import torch.nn.functional as F
from op_cases import (
    ISAS,
    RecordedCalls,
    check_instruction_set,
    reason_to_skip,
    relative_error,
    start_python,
)
from torch import Tensor, nn

from unireplknet_ops import choice, gelu_grn, gelu_grn_takes_op
from unireplknet_ops.errors import ArgumentError, OpUnavailableError
from unireplknet_ops.feedforward import naive
from unireplknet_ops.feedforward.functional import FORCE_VARIABLE

pytestmark = pytest.mark.skipif(
    reason_to_skip('cpu') is not None, reason='no compiled op: the operator is not defined'
)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NAMES = ('x', 'bias', 'gamma', 'beta')

# (N, positions..., C): lanes that are and are not filled, one and several chunks of rows, one and several
# groups of images, tasks of the sum over images.
SHAPES = (
    (1, 1, 1, 1),
    (1, 1, 1, 40),
    (3, 5, 7, 1),
    (2, 3, 130),
    (2, 14, 13, 68),
    (1, 1, 700, 3),
    (4, 7, 7, 513),
    (2, 3, 4, 5, 33),
    (1, 40, 41, 64),
    (5, 80, 82, 97),
    (0, 4, 6, 16),
    (2, 0, 6, 16),
)


@functools.cache
def inputs_of(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Float64 numbers that every tested dtype can hold."""
    generator = torch.Generator().manual_seed(sum(shape))

    def numbers(*sizes):
        return torch.randn(sizes, generator=generator).bfloat16().half().double()

    channels = shape[-1]
    return dict(
        x=numbers(*shape),
        bias=numbers(channels) / 2,
        gamma=numbers(channels),
        beta=numbers(channels),
        grad_output=numbers(*shape),
    )


@functools.cache
def expected_of(shape: tuple[int, ...], without: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The output and the gradients, in float64."""
    x, bias, gamma, beta, grad_output = (
        None if name in without else tensor for name, tensor in inputs_of(shape).items()
    )
    output, norm = naive.gelu_grn(x, bias, gamma, beta)
    grads = naive.gelu_grn_backward(grad_output, x, bias, gamma, norm)
    return dict(output=output, **dict(zip(NAMES, grads, strict=True)))


# The most a result may differ, in the Euclidean norm.
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def results_of(
    tensors: dict[str, Tensor | None], grad_output: Tensor, implementation='op'
) -> dict[str, Tensor]:
    leaves = {
        name: tensor if tensor is None else tensor.detach().requires_grad_()
        for name, tensor in tensors.items()
    }
    output = gelu_grn(**leaves, implementation=implementation)
    given = {name: tensor for name, tensor in leaves.items() if tensor is not None}
    grads = torch.autograd.grad(output, list(given.values()), grad_output)
    return dict(output=output.detach(), **dict(zip(given, grads, strict=True)))


def check(shape, dtype, without=(), vector_dtype=torch.float32) -> None:
    tensors = {
        name: tensor.to(dtype if name in ('x', 'grad_output') else vector_dtype)
        for name, tensor in inputs_of(shape).items()
    }
    grad_output = tensors.pop('grad_output')
    tensors.update(dict.fromkeys(without))
    expected = expected_of(shape, without)
    results = results_of(tensors, grad_output)
    assert set(results) == {'output', *NAMES} - set(without)
    for name, result in results.items():
        assert result.dtype == (dtype if name in ('output', 'x') else vector_dtype)
        assert result.shape == expected[name].shape and result.is_contiguous()
        tolerance = max(TOLERANCES[dtype], TOLERANCES[result.dtype])
        # Few numbers may be small by chance, as sums of terms that are not.
        slack = 1e-5 if result.numel() < 50 else 0
        error = (result - expected[name]).norm()
        assert error <= tolerance * expected[name].norm() + slack, name  # NaN is wrong


@pytest.mark.usefixtures('nan_in_new_memory')
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_against_the_formulas(shape, dtype):
    check(shape, dtype)


CHECK_ALL = """
import torch
from test_gelu_grn import DTYPES, SHAPES, check
torch.use_deterministic_algorithms(True, warn_only=True)  # new memory holds NaN
for shape in SHAPES:
    for dtype in DTYPES:
        check(shape, dtype)
print(torch.ops.unireplknet.cpu_isa())
"""


@pytest.mark.parametrize('isa', ISAS)
def test_every_instruction_set(isa):
    check_instruction_set(isa, start_python(CHECK_ALL, UNIREPLKNET_CPU_ISA=isa))


@pytest.mark.parametrize('without', [('bias',), ('beta',), ('bias', 'beta')], ids=str)
@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_without_the_optional_ones(without, dtype):
    check((2, 5, 6, 100), dtype, without)


def test_vectors_of_16_bits_get_gradients_of_16_bits():
    check((2, 5, 6, 100), torch.bfloat16, vector_dtype=torch.bfloat16)


@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (3, 7, 2), (2, 2, 2, 1)], ids=str)
def test_the_formulas_are_derivatives(shape):
    *tensors, grad_output = inputs_of(shape).values()
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    output, norm = naive.gelu_grn(*tensors)
    grads = torch.autograd.grad(output, tensors, grad_output)
    formulas = naive.gelu_grn_backward(grad_output, *tensors[:3], norm)
    for grad, formula in zip(grads, formulas, strict=True):
        torch.testing.assert_close(formula, grad, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(functools.partial(gelu_grn, implementation='native'), tensors)


def test_strides():
    """Maps that are not dense, and a gradient that is one number for all."""
    x = inputs_of((2, 14, 13, 68))['x'].float()
    vectors = {name: inputs_of((2, 14, 13, 68))[name].float() for name in NAMES[1:]}
    views = (
        x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        torch.cat([x, x], 1)[:, ::2],
        torch.cat([x, x], -1)[..., 1:69],
    )
    for view in views:
        expected = results_of(dict(x=view.contiguous(), **vectors), torch.ones_like(x))
        results = results_of(dict(x=view, **vectors), torch.ones(()).expand_as(x))
        assert not view.is_contiguous()
        assert all(torch.equal(results[name], expected[name]) for name in expected)


def test_gelu_and_its_derivative_are_exact_to_rounding():
    """Without GRN (gamma 0), on numbers of all sizes and both signs."""
    small = torch.logspace(-30, 0, 2000)
    x = torch.cat([torch.linspace(-12, 12, 60000), small, -small, torch.tensor([-1e4, 1e4])])
    x = x.reshape(1, -1, 1)
    results = results_of(dict(x=x, bias=None, gamma=torch.zeros(1), beta=None), torch.ones_like(x))
    exact = x.double().requires_grad_()
    F.gelu(exact).sum().backward()
    error = (results['output'] - F.gelu(x.double())).abs()
    assert (error <= 3e-7 * x.abs().clamp(max=6)).all()
    assert (results['x'] - exact.grad).abs().max() <= 3e-7


def test_runs_and_threads_agree_to_the_bit():
    tensors = {name: tensor.float() for name, tensor in inputs_of((5, 80, 82, 97)).items()}
    grad_output = tensors.pop('grad_output')
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            runs.append(results_of(tensors, grad_output))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(run[name], runs[0][name]) for run in runs for name in run)


def as_dtype(shape: tuple[int, ...], dtype=torch.float32) -> dict[str, Tensor]:
    return {name: inputs_of(shape)[name].to(dtype) for name in NAMES}


@pytest.mark.parametrize('number', [torch.nan, -torch.inf])
def test_nan_and_minus_infinity_stay_in_their_image(number):
    """And make all of it NaN, as in the modules: GELU of minus infinity is NaN."""
    tensors = as_dtype((4, 7, 7, 513))
    grad_output = torch.ones_like(tensors['x'])
    expected = results_of(tensors, grad_output)
    tensors['x'] = tensors['x'].clone()
    tensors['x'][2, 1, 1, 5] = number
    actual = results_of(tensors, grad_output)
    native = results_of(tensors, grad_output, 'native')
    for name in ('output', 'x'):
        assert actual[name][2].isnan().all() and native[name][2].isnan().all()
        assert torch.equal(actual[name][[0, 1, 3]], expected[name][[0, 1, 3]])


def test_infinity_makes_its_channel_nan():
    """Its norm over the mean, infinity over infinity; those of the other channels become 0."""
    tensors = as_dtype((2, 3, 130))
    expected = gelu_grn(**tensors | dict(gamma=torch.zeros(130)), implementation='op')
    tensors['x'] = tensors['x'].clone()
    tensors['x'][1, 2, 5] = torch.inf
    output = gelu_grn(**tensors, implementation='op')
    assert output[1, :, 5].isnan().all()
    others = torch.arange(130) != 5
    assert torch.equal(output[1][:, others], expected[1][:, others])


def test_channels_of_zeros_have_the_gradients_of_the_modules():
    tensors = as_dtype((2, 3, 130)) | dict(bias=None)
    tensors['x'] = tensors['x'].clone()
    tensors['x'][:, :, 7] = 0
    tensors['x'][1] = 0  # no response to divide by
    grad_output = inputs_of((2, 3, 130))['grad_output'].float()
    results = results_of(tensors, grad_output)
    native = results_of(tensors, grad_output, 'native')
    for name in results:
        assert relative_error(results[name], native[name]) <= 1e-6
    assert results['x'][:, :, 7].count_nonzero() == 6


@pytest.mark.parametrize('shape', [(2, 4, 5, 20), (3, 7, 17)], ids=str)
def test_opcheck(shape):
    operators = torch.ops.unireplknet
    x, bias, gamma, beta = as_dtype(shape).values()
    leaves = [tensor.clone().requires_grad_() for tensor in (x, bias, gamma, beta)]
    torch.library.opcheck(operators.gelu_grn, leaves)
    torch.library.opcheck(operators.gelu_grn, [x.bfloat16(), None, gamma, None])
    norm = torch.rand(shape[0], shape[-1])
    torch.library.opcheck(operators.gelu_grn_backward, [x, x, None, gamma, norm])
    torch.library.opcheck(operators.gelu_grn_backward, [x, x, bias, gamma, norm])


def test_the_operator_differentiates_as_the_function():
    tensors = as_dtype((2, 4, 5, 20))
    grad_output = inputs_of((2, 4, 5, 20))['grad_output'].float()
    leaves = [tensor.clone().requires_grad_() for tensor in tensors.values()]
    output, norm = torch.ops.unireplknet.gelu_grn(*leaves)
    assert not norm.requires_grad
    grads = torch.autograd.grad(output, leaves, grad_output)
    expected = results_of(tensors, grad_output)
    assert all(torch.equal(g, expected[name]) for g, name in zip(grads, NAMES, strict=True))


def test_operator_errors_name_the_value():
    operators = torch.ops.unireplknet
    x, bias, gamma, beta = as_dtype((2, 4, 5, 20)).values()
    norm = torch.rand(2, 20)
    for arguments, message in (
        ((x[0, 0], bias, gamma, beta), r'x must have the shape .*, got \(5, 20\)'),
        ((x.double(), bias, gamma, beta), 'float64 is not supported: use float32'),
        ((x, bias[:-1], gamma, beta), r'bias must have the shape \(20\), got \(19\)'),
        ((x, bias, gamma.double(), beta), 'gamma has dtype Double, not float32'),
        ((x, bias, gamma, beta[None]), r'beta must have the shape \(20\), got \(1, 20\)'),
    ):
        with pytest.raises(RuntimeError, match=message):
            operators.gelu_grn(*arguments)
    for arguments, message in (
        ((x[:1], x, bias, gamma, norm), r'grad_output must have the shape \(2, 4, 5, 20\) of x'),
        ((x.half(), x, bias, gamma, norm), 'grad_output has dtype Half but x has Float'),
        ((x, x, bias, gamma, norm[0]), r'norm must have the shape \(2, 20\), got \(20\)'),
    ):
        with pytest.raises(RuntimeError, match=message):
            operators.gelu_grn_backward(*arguments)


# Derivatives.


@pytest.mark.parametrize('needed', range(1, 16))
def test_gradients_that_are_not_asked_for_are_not_given(needed):
    tensors = as_dtype((2, 4, 5, 20))
    expected = results_of(tensors, torch.ones_like(tensors['x']))
    given = {
        name: tensor.clone().requires_grad_(bool(needed >> i & 1))
        for i, (name, tensor) in enumerate(tensors.items())
    }
    gelu_grn(**given, implementation='op').sum().backward()
    for name, tensor in given.items():
        assert (tensor.grad is not None) == tensor.requires_grad
        assert tensor.grad is None or torch.equal(tensor.grad, expected[name])


def test_second_derivatives():
    seconds = []
    for implementation in ('op', 'native'):
        leaves = [t.clone().requires_grad_() for t in as_dtype((2, 4, 5, 20)).values()]
        output = gelu_grn(*leaves, implementation=implementation)
        grads = torch.autograd.grad(output.square().sum(), leaves, create_graph=True)
        sum(grad.square().sum() for grad in grads).backward()
        seconds.append([leaf.grad for leaf in leaves])
    for actual, expected in zip(*seconds, strict=True):
        assert relative_error(actual, expected) <= 1e-5


@pytest.mark.parametrize('create_graph', [False, True])
def test_an_input_may_follow_from_another(create_graph):
    """As where one block's output, which depends on its bias, is its next input."""
    grads = []
    for implementation in ('op', 'native'):
        leaves = [t.clone().requires_grad_() for t in as_dtype((2, 4, 5, 20)).values()]
        output, *parameters = leaves
        for _ in '12':
            output = gelu_grn(output, *parameters, implementation=implementation)
        loss = output.square().sum()
        grads.append(torch.autograd.grad(loss, leaves, create_graph=create_graph))
    for actual, expected in zip(*grads, strict=True):
        assert relative_error(actual, expected) <= 1e-5


@pytest.mark.filterwarnings('ignore:There is a performance drop')
@pytest.mark.parametrize('create_graph', [False, True])
def test_batches_of_gradients(create_graph):
    leaves = [t.clone().requires_grad_() for t in as_dtype((2, 4, 5, 20)).values()]
    output = gelu_grn(*leaves, implementation='op')
    batch = torch.randn(3, *output.shape, generator=torch.Generator().manual_seed(0))
    options = dict(retain_graph=True, create_graph=create_graph)
    actual = torch.autograd.grad(output, leaves, batch, is_grads_batched=True, **options)
    single = [torch.autograd.grad(output, leaves, one, **options) for one in batch]
    for grad, expected in zip(actual, map(torch.stack, zip(*single, strict=True)), strict=True):
        assert relative_error(grad, expected) <= 1e-6


def test_keeps_one_map_for_the_derivative():
    leaves = {name: t.clone().requires_grad_() for name, t in as_dtype((2, 4, 5, 200)).items()}
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        gelu_grn(**leaves, implementation='op')
    maps = [tensor for tensor in kept if tensor.numel() > 3 * 200]
    assert [tensor.data_ptr() for tensor in maps] == [leaves['x'].data_ptr()]


# The choice.


@pytest.fixture(autouse=True)
def processor_that_was_measured(monkeypatch):
    monkeypatch.delenv(FORCE_VARIABLE, raising=False)
    monkeypatch.setattr(choice, 'instruction_set', lambda: 'avx2')


def taken(tensors: dict[str, Tensor]) -> str:
    with RecordedCalls() as calls:
        gelu_grn(**tensors)
    name = 'op' if 'gelu_grn' in calls.names else 'native'
    assert gelu_grn_takes_op(*tensors.values()) == (name == 'op')
    return name


def test_auto_takes_the_op_where_it_was_measured(monkeypatch):
    shape = (2, 4, 5, 20)
    assert [taken(as_dtype(shape, dtype)) for dtype in DTYPES] == ['op'] * 3
    assert taken(as_dtype(shape, torch.float64)) == 'native'
    weight = nn.Parameter(as_dtype(shape)['gamma'])
    assert taken(as_dtype(shape) | dict(gamma=weight)) == 'op'
    monkeypatch.setattr(choice, 'instruction_set', lambda: 'portable')
    assert taken(as_dtype(shape)) == 'native'


def test_auto_leaves_large_maps_of_one_position_to_pytorch():
    assert [taken(as_dtype((n, 1, 1, 512))) for n in (0, 1, 15, 16)] == ['op'] * 3 + ['native']
    assert taken(as_dtype((16, 1, 512))) == 'native'
    assert taken(as_dtype((16, 1, 2, 512))) == 'op'


def test_auto_is_native_for_tensors_that_are_more_than_numbers():
    class Labelled(Tensor):
        pass

    tensors = as_dtype((2, 4, 5, 20))
    assert not gelu_grn_takes_op(tensors['x'].as_subclass(Labelled), tensors['gamma'])
    assert isinstance(gelu_grn(**tensors | dict(x=tensors['x'].as_subclass(Labelled))), Labelled)


@pytest.mark.parametrize('forced', ['native', 'op'])
def test_environment_forces(monkeypatch, forced):
    monkeypatch.setenv(FORCE_VARIABLE, forced)
    assert taken(as_dtype((2, 4, 5, 20))) == forced


def test_unknown_values_are_errors():
    tensors = as_dtype((2, 4, 5, 20))
    with pytest.raises(ArgumentError, match="implementation='fast' is not known"):
        gelu_grn(**tensors, implementation='fast')
    with pytest.raises(ArgumentError, match=r'beta must have the shape \(20,\), got \(21,\)'):
        gelu_grn(**tensors | dict(beta=torch.zeros(21)))
    with pytest.raises(ArgumentError, match=r'x must have the shape .*, got \(4, 20\)'):
        gelu_grn(**tensors | dict(x=torch.zeros(4, 20)))
    with pytest.raises(OpUnavailableError, match='it does not compute in'):
        gelu_grn(**as_dtype((2, 4, 5, 20), torch.float64), implementation='op')


def test_auto_is_native_without_the_library(monkeypatch):
    monkeypatch.setattr(choice, 'missing_library', lambda: 'not built')
    assert taken(as_dtype((2, 4, 5, 20))) == 'native'
    with pytest.raises(OpUnavailableError, match='but the op cannot run here: not built'):
        gelu_grn(**as_dtype((2, 4, 5, 20)), implementation='op')


def test_transforms_see_pytorchs_operators():
    x, *vectors = as_dtype((2, 4, 5, 20)).values()
    expected = gelu_grn(x, *vectors)
    assert torch.ops.unireplknet.gelu_grn(x, *vectors)[0].equal(expected)
    batched = torch.func.vmap(lambda x: gelu_grn(x, *vectors))(x[None])
    torch.testing.assert_close(batched[0], expected, rtol=1e-5, atol=1e-5)
    grad = torch.func.grad(lambda x: gelu_grn(x, *vectors).sum())(x)
    leaf = x.clone().requires_grad_()
    gelu_grn(leaf, *vectors).sum().backward()
    torch.testing.assert_close(grad, leaf.grad, rtol=1e-4, atol=1e-5)


# Recorded graphs.


class Middle(nn.Module):
    """The smallest module of its kind."""

    def __init__(self, channels=40):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(channels))
        self.gamma = nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return gelu_grn(x, self.bias, self.gamma, None)


def test_compiled_in_one_graph_with_both_operators():
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.aot_autograd import make_boxed_func

    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.graph))
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    module = Middle()
    compiler = aot_autograd(fw_compiler=backend, bw_compiler=backend)
    compiled = torch.compile(module, backend=compiler, fullgraph=True, dynamic=True)
    for shape in ((2, 8, 9, 40), (3, 11, 7, 40)):
        grads = []
        for function in (compiled, module):
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
            module.zero_grad()
            output = function(x)
            output.square().sum().backward()
            grads.append([output, x.grad, module.bias.grad, module.gamma.grad])
        assert all(map(torch.equal, *grads))
    forward, backward = graphs
    assert 'unireplknet.gelu_grn.default' in forward
    assert 'unireplknet.gelu_grn_backward.default' in backward


@pytest.mark.parametrize('strict', [False, True])
def test_exported_without_the_op(strict):
    module, x = Middle(), torch.randn(2, 8, 9, 40)
    program = torch.export.export(module, (x,), strict=strict)
    assert 'unireplknet' not in str(program.graph_module.code)
    torch.testing.assert_close(program.module()(x), module(x), rtol=1e-4, atol=1e-5)


def test_traced_without_the_op():
    module, x = Middle(), torch.randn(2, 8, 9, 40)
    with warnings.catch_warnings():
        warnings.simplefilter('error', torch.jit.TracerWarning)
        traced = torch.jit.trace(module, x)
    assert 'unireplknet::' not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), module(x), rtol=1e-4, atol=1e-5)
