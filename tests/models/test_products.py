"""Linear layers by oneDNN: PyTorch's numbers and gradients, and where they leave the products to PyTorch."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from helpers import relative_error
from torch import Tensor, nn
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from unireplknet_mm.models import layers, products
from unireplknet_mm.models.blocks import UniRepLKNetBlock
from unireplknet_mm.models.layers import as_written
from unireplknet_mm.models.scaled_linear import scaled_linear
from unireplknet_ops import torch_internals

ONEDNN = 'mkldnn::_linear_pointwise'

pytestmark = pytest.mark.skipif(
    products.onednn_linear is None, reason='this torch has no oneDNN product'
)


@pytest.fixture(autouse=True)
def processor_with_slow_products(monkeypatch):
    monkeypatch.setattr(products, 'has_slow_float32_products', lambda: True)
    monkeypatch.setattr(products, 'LEAST_MULTIPLICATIONS', 1)
    monkeypatch.setattr(products, 'LEAST_MULTIPLICATIONS_IN_FLOAT16', 1)


def operators_of(function, *args) -> list[str]:
    with profile() as profiler:
        function(*args)
    return [event.name for event in profiler.function_events]


def tensors_of(*shape: int, out_features=24, bias=True) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(shape, generator=generator),
        torch.randn(out_features, shape[-1], generator=generator),
        torch.randn(out_features, generator=generator) if bias else None,
    ]
    return [None if tensor is None else tensor.requires_grad_() for tensor in tensors]


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('shape', [(2, 5, 7, 10), (1, 1), (3, 16), (2, 33, 1)], ids=str)
@pytest.mark.parametrize('out_features', [1, 24])
def test_a_step_is_that_of_the_layer(shape, out_features, bias):
    leaves = tensors_of(*shape, out_features=out_features, bias=bias)
    given = [tensor for tensor in leaves if tensor is not None]
    output = products.linear(*leaves)
    expected = F.linear(*leaves)
    assert output.shape == expected.shape and relative_error(output, expected) <= 1e-6
    grad_output = torch.randn(output.shape)
    for actual, reference in zip(
        torch.autograd.grad(output, given, grad_output),
        torch.autograd.grad(expected, given, grad_output),
        strict=True,
    ):
        assert actual.shape == reference.shape
        # One number may be small by chance, as a sum of terms that are not.
        assert (actual - reference).norm() <= 1e-6 * reference.norm() + 1e-5


def test_all_three_products_are_of_onednn():
    x, weight, bias = tensors_of(2, 5, 7, 10)
    step = lambda: products.linear(x, weight, bias).sum().backward()  # noqa: E731
    assert operators_of(step).count(ONEDNN) == 3
    vectors = torch.randn(2, 10), torch.randn(2, 10)
    step = lambda: scaled_linear(x.permute(0, 3, 1, 2), *vectors, weight).sum().backward()  # noqa: E731
    assert operators_of(step).count(ONEDNN) == 3


@pytest.mark.parametrize('frozen', [(), (0,), (1,), (2,), (0, 1)], ids=str)
def test_gradients_that_nobody_asks_for_are_not_computed(frozen):
    leaves = tensors_of(2, 5, 7, 10)
    for i in frozen:
        leaves[i].requires_grad_(False)
    names = operators_of(lambda: products.linear(*leaves).sum().backward())
    assert names.count(ONEDNN) == 3 - len({0, 1} & set(frozen))
    assert [leaf.grad is not None for leaf in leaves] == [i not in frozen for i in range(3)]


def test_gradients_of_gradients():
    grads = []
    for function in (products.linear, F.linear):
        leaves = tensors_of(2, 3, 5, out_features=4)
        output = function(*leaves).sin()
        first = torch.autograd.grad(output.sum(), leaves, create_graph=True)
        grads.append(torch.autograd.grad(sum(g.square().sum() for g in first), leaves))
    for actual, expected in zip(*grads, strict=True):
        assert relative_error(actual, expected) <= 1e-5


@pytest.mark.filterwarnings('ignore:There is a performance drop')
def test_batches_of_gradients():
    leaves = tensors_of(2, 3, 5, out_features=4)
    output = products.linear(*leaves)
    batch = torch.randn(3, *output.shape)
    actual = torch.autograd.grad(output, leaves, batch, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(output, leaves, one, retain_graph=True) for one in batch]
    for grad, expected in zip(actual, map(torch.stack, zip(*single, strict=True)), strict=True):
        assert relative_error(grad, expected) <= 1e-6


def test_expanded_gradients_and_empty_batches():
    x, weight, bias = tensors_of(2, 5, 7, 10)
    products.linear(x, weight, bias).sum().backward()  # whose gradient is one number, expanded
    assert relative_error(bias.grad, torch.full((24,), 70.0)) <= 1e-6
    empty = torch.zeros(0, 5, 10, requires_grad=True)
    output = products.linear(empty, weight, bias)
    output.sum().backward()
    assert output.shape == (0, 5, 24) and empty.grad.shape == empty.shape


OVERLAPPING = dict(size=(24, 10), stride=(1, 1))
STRIDED = {
    'expanded': lambda: torch.randn(1, 10).expand(24, 10),
    'overlapping': lambda: torch.randn(33).as_strided(**OVERLAPPING),
    'transposed': lambda: torch.randn(10, 24).t(),
    'sliced': lambda: torch.randn(48, 30)[::2, ::3],
    'negated': lambda: torch.randn(24, 10)._neg_view(),
}


@pytest.mark.parametrize('strides', STRIDED)
@pytest.mark.parametrize('place', [0, 1], ids=['x', 'weight'])
def test_tensors_of_any_strides(strides, place):
    leaves = tensors_of(24, 10)
    leaves[place] = STRIDED[strides]().requires_grad_()
    output, expected = products.linear(*leaves), F.linear(*leaves)
    assert relative_error(output, expected) <= 1e-6
    grad_output = torch.randn(24, 24)
    for actual, reference in zip(
        torch.autograd.grad(output, leaves, grad_output),
        torch.autograd.grad(expected, leaves, grad_output),
        strict=True,
    ):
        assert relative_error(actual, reference) <= 1e-5


@pytest.mark.parametrize(
    'shapes', [((3, 10), (24, 11)), ((3, 10), (2, 2, 10)), ((), (1, 1))], ids=str
)
def test_pytorch_names_shapes_that_do_not_fit(shapes):
    x, weight = map(torch.randn, shapes)
    with pytest.raises(RuntimeError) as expected:
        F.linear(x, weight)
    with pytest.raises(RuntimeError) as raised:
        products.linear(x, weight)
    assert str(raised.value) == str(expected.value)


def test_biases_and_weights_that_broadcast():
    x, weight, _ = tensors_of(3, 10)
    bias = torch.randn(1, 24, requires_grad=True)
    products.linear(x, weight, bias).sum().backward()
    assert bias.grad.shape == bias.shape
    assert torch.equal(products.linear(x, weight[0]), F.linear(x, weight[0]))


@pytest.mark.parametrize(('channels', 'out_features'), [(10, 24), (24, 10), (10, 10)])
def test_the_narrower_operand_of_the_weights_gradient_is_on_the_left(channels, out_features):
    operands = []

    def multiply(x: Tensor, weight: Tensor) -> Tensor:
        operands.append((len(x), len(weight)))
        return F.linear(x, weight)

    x, grad_output = torch.randn(2, 5, 7, channels), torch.randn(2, 5, 7, out_features)
    grad = products.gradient_of_weight(grad_output, x, multiply)
    assert operands == [tuple(sorted((channels, out_features)))] and grad.is_contiguous()
    assert relative_error(grad, torch.einsum('nhwo,nhwc->oc', grad_output, x)) <= 1e-6


LEFT_TO_PYTORCH = {
    'as written': (as_written, torch.float32),
    'oneDNN disabled': (lambda: torch.backends.mkldnn.flags(enabled=False), torch.float32),
    'autocast': (lambda: torch.autocast('cpu', torch.bfloat16), torch.float32),
    'float64': (contextlib.nullcontext, torch.float64),
    'bfloat16': (contextlib.nullcontext, torch.bfloat16),
}


@pytest.mark.parametrize('case', LEFT_TO_PYTORCH)
def test_left_to_pytorch(case):
    context, dtype = LEFT_TO_PYTORCH[case]
    x, weight, bias = (tensor.detach().to(dtype) for tensor in tensors_of(2, 5, 7, 10))
    with context():
        names = operators_of(products.linear, x, weight, bias)
    assert 'aten::linear' in names and ONEDNN not in names


def test_small_products_are_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(products, 'LEAST_MULTIPLICATIONS', 64 * 16 * 24)
    assert ONEDNN in operators_of(products.linear, *tensors_of(64, 16))
    assert ONEDNN not in operators_of(products.linear, *tensors_of(63, 16))


def test_transforms_and_graphs_see_pytorchs_product():
    x, weight, bias = (tensor.detach() for tensor in tensors_of(3, 7, 10))
    expected = F.linear(x, weight, bias)
    batched = torch.func.vmap(lambda x: products.linear(x, weight, bias))(x)
    assert relative_error(batched, expected) <= 1e-6
    grad = torch.func.grad(lambda w: products.linear(x, w, bias).sum())(weight)
    assert relative_error(grad, x.sum((0, 1)).expand(24, 10)) <= 1e-5

    class Layer(nn.Module):
        def forward(self, x):
            return products.linear(x, weight, bias)

    program = torch.export.export(Layer(), (x,))
    assert 'mkldnn' not in str(program.graph_module.code)
    assert 'mkldnn' not in str(torch.jit.trace(Layer(), x).inlined_graph)


@pytest.mark.parametrize('bias', [False, True])
def test_compiled_with_all_three_products(bias):
    from torch._dynamo.backends.common import aot_autograd
    from torch._functorch.aot_autograd import make_boxed_func

    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.graph))
        return make_boxed_func(graph.forward)

    torch._dynamo.reset()
    compiler = aot_autograd(fw_compiler=backend, bw_compiler=backend)
    compiled = torch.compile(products.linear, backend=compiler, fullgraph=True, dynamic=True)
    for shape in ((2, 5, 7, 10), (3, 4, 9, 10)):
        leaves = tensors_of(*shape, bias=bias)
        given = [tensor for tensor in leaves if tensor is not None]
        grads = [
            torch.autograd.grad(function(*leaves).square().sum(), given)
            for function in (compiled, products.linear)
        ]
        assert all(relative_error(*pair) <= 1e-6 for pair in zip(*grads, strict=True))
    forward, backward = graphs
    assert forward.count('unireplknet_mm.linear.default') == 1
    assert backward.count('unireplknet_mm.linear.default') == 2
    torch._dynamo.reset()
    with torch.autocast('cpu', torch.bfloat16):
        output = torch.compile(products.linear, backend=compiler)(*leaves)
    assert output.dtype == torch.bfloat16 and 'unireplknet' not in graphs[2]


class _Quantized(Tensor):
    """As a quantized weight: more than its numbers."""


def test_compiled_graphs_leave_subclasses_to_pytorch():
    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.graph))
        return graph.forward

    torch._dynamo.reset()
    x, weight, _ = (tensor.detach() for tensor in tensors_of(2, 5, 7, 10))
    for operand in (weight, weight.as_subclass(_Quantized)):
        torch.compile(products.linear, backend=backend)(x, operand)
    torch._dynamo.reset()
    assert ['unireplknet' in graph for graph in graphs] == [True, False]


def test_graphs_whose_sizes_depend_on_data():
    class Selected(nn.Linear):
        def forward(self, x, mask):
            return products.linear(x[mask], self.weight, self.bias)

    x, mask, layer = torch.randn(3, 10), torch.tensor([True, False, True]), Selected(10, 24)
    program = torch.export.export(layer, (x, mask))
    assert 'aten.linear' in program.graph_module.code
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
        for some in (mask, ~mask, torch.zeros_like(mask)):
            layer.zero_grad()
            output = compiled(x, some)
            output.sum().backward()
            expected = F.linear(x[some], layer.weight, layer.bias), x[some].sum(0).expand(24, 10)
            for actual, reference in zip((output, layer.weight.grad), expected, strict=True):
                assert torch.allclose(actual, reference, atol=1e-6)
    torch._dynamo.reset()


def test_graphs_name_the_layer():
    block = UniRepLKNetBlock(24, 5).eval()
    traced = torch.fx.symbolic_trace(block)
    assert {'pwconv1.1', 'pwconv2.0'} <= {node.target for node in traced.graph.nodes}
    program = torch.export.export(block, (torch.randn(2, 24, 9, 8),))
    modules = [
        [path for path, _ in node.meta['nn_module_stack'].values()][-1]
        for node in program.graph.nodes
        if node.target is torch.ops.aten.linear.default
    ]
    assert modules == ['pwconv1.1', 'pwconv2.0']


def test_opcheck():
    x, weight, _ = tensors_of(2, 5, 7, 10)
    torch.library.opcheck(torch.ops.unireplknet_mm.linear, (x, weight))
    torch.library.opcheck(torch.ops.unireplknet_mm.linear, (x[0, 0], weight.detach()))
    torch.library.opcheck(
        torch.ops.unireplknet_mm.linear, (x.detach()[:0].requires_grad_(), weight)
    )


def test_operations_are_counted():
    counts = []
    for function in (products.linear, F.linear):
        with FlopCounterMode(display=False) as counter:
            function(*tensors_of(2, 5, 7, 10)).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts == [3 * 2 * (2 * 5 * 7) * 10 * 24] * 2


@pytest.mark.parametrize('form', ['training', 'frozen norms', 'deploy', 'without layer scale'])
def test_every_form_of_a_block_trains_by_them(form):
    kwargs = dict(deploy=form == 'deploy')
    if form == 'without layer scale':
        kwargs['layer_scale_init_value'] = 0
    block = UniRepLKNetBlock(24, 13, **kwargs).train(form != 'frozen norms')
    x = torch.randn(2, 24, 9, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    names = operators_of(lambda: block(x).sum().backward())
    assert names.count(ONEDNN) == 6  # two layers, three products each


def test_only_where_mkl_keeps_to_avx2(monkeypatch):
    def taken(**capabilities) -> bool:
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: capabilities)
        return torch_internals.has_slow_float32_products()

    monkeypatch.setattr(torch.backends.mkl, 'is_available', lambda: True)
    assert taken(cpu_name='AMD EPYC 9755', avx512_f=True)
    assert not taken(cpu_name='AMD EPYC 7763', avx512_f=False)
    assert not taken(cpu_name='Intel(R) Xeon(R) Gold 6430', avx512_f=True)
    assert not taken()
    monkeypatch.setattr(torch.backends.mkl, 'is_available', lambda: False)
    assert not taken(cpu_name='AMD EPYC 9755', avx512_f=True)


# float16, on processors that convert it.


@pytest.fixture
def converts(monkeypatch):
    monkeypatch.setattr(layers, 'has_float16_arithmetic', lambda: False)


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('autocast', [False, True])
def test_a_step_in_float16_is_computed_in_float32(autocast, bias, converts):
    leaves = tensors_of(2, 5, 7, 10, bias=bias)
    if not autocast:
        leaves = [None if t is None else t.detach().half().requires_grad_() for t in leaves]
    given = [tensor for tensor in leaves if tensor is not None]
    exact = [None if t is None else t.detach().half().double().requires_grad_() for t in leaves]
    grad_output = torch.randn(2, 5, 7, 24).half()

    def step():
        with torch.autocast('cpu', torch.float16, enabled=autocast):
            output = products.linear(*leaves)
            return output, torch.autograd.grad(output, given, grad_output)

    assert operators_of(step).count(ONEDNN) == 3
    output, grads = step()
    expected = F.linear(*exact)
    references = torch.autograd.grad(
        expected, [tensor for tensor in exact if tensor is not None], grad_output.double()
    )
    assert output.dtype == torch.float16 and relative_error(output, expected) <= 3e-4
    for tensor, grad, reference in zip(given, grads, references, strict=True):
        assert grad.dtype == tensor.dtype and relative_error(grad, reference) <= 3e-4


def test_gradients_of_gradients_in_float16(converts):
    x, weight, _ = (t.half() for t in tensors_of(3, 10))
    output = products.linear(x, weight)
    (grad,) = torch.autograd.grad(output.float().square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.float().square().sum(), weight)
    exact = [t.detach().double().requires_grad_() for t in (x, weight)]
    (grad,) = torch.autograd.grad(F.linear(*exact).square().sum(), exact[0], create_graph=True)
    (expected,) = torch.autograd.grad(grad.square().sum(), exact[1])
    assert relative_error(second, expected) <= 3e-3


def test_float16_left_to_pytorch(converts, monkeypatch):
    x, weight, bias = (t.detach().half() for t in tensors_of(3, 10))
    assert products.takes_over(x, weight, bias)
    assert not products.takes_over(x, weight.float()) and not products.takes_over(
        x.double(), weight
    )
    assert not products.takes_over(x, weight, bias[:1])
    with torch.autocast('cpu', torch.float16):
        assert products.takes_over(x.float(), weight.float(), bias)
        assert not products.takes_over(x.double(), weight)
    with torch.autocast('cpu', torch.bfloat16):
        assert not products.takes_over(x, weight, bias)
    with as_written():
        assert not products.takes_over(x, weight, bias)
    monkeypatch.setattr(products, 'LEAST_MULTIPLICATIONS_IN_FLOAT16', x.numel() * 24 + 1)
    assert not products.takes_over(x, weight, bias)
    monkeypatch.setattr(products, 'LEAST_MULTIPLICATIONS_IN_FLOAT16', x.numel() * 24)
    assert products.takes_over(x, weight, bias)
    monkeypatch.setattr(layers, 'has_float16_arithmetic', lambda: True)
    assert not products.takes_over(x, weight, bias)


@pytest.mark.parametrize('form', ['half', 'autocast'])
def test_no_product_of_a_block_in_float16_is_slow(form, converts):
    block = UniRepLKNetBlock(16, 13).train()
    x = torch.randn(2, 16, 9, 8)
    if form == 'half':
        block, x = block.half(), x.half()
    with (
        torch.autocast('cpu', torch.float16, enabled=form == 'autocast'),
        profile(record_shapes=True) as profiler,
    ):
        block(x).float().square().mean().backward()
    names = [event.name for event in profiler.function_events]
    assert names.count(ONEDNN) == 6
    assert all(torch.isfinite(p.grad).all() for p in block.parameters() if p.grad is not None)
