"""What torch does not promise: all of it in one file, and every name of it may go."""

import importlib.util
import io
import re
import sys
from pathlib import Path

import pytest
import torch
from op_cases import (
    Case,
    RecordedCalls,
    inputs_of,
    reason_to_skip,
    reference,
    run,
    run_python,
)
from torch import nn
from torch._subclasses import fake_tensor
from torch.autograd import forward_ad

from unireplknet_ops import DepthwiseConv2d, depthwise_conv2d, dispatch, library, torch_internals
from unireplknet_ops.depthwise import functional, operators

needs_op = pytest.mark.skipif(reason_to_skip('cpu') is not None, reason='no compiled op')

# Where torch has each name, and what of `torch_internals` stands on it.
PRIVATE = {
    '_is_tracing': (torch._C, 'is_tracing'),
    '_is_any_autocast_enabled': (torch._C, 'is_any_autocast_enabled'),
    '_AutoDispatchBelowAutograd': (torch._C, 'below_autograd'),
    '_ExcludeDispatchKeyGuard': (torch._C, 'without_autocast'),
    'DispatchKeySet': (torch._C, 'without_autocast'),
    '_get_tracing_state': (torch._C, 'tracing_paused'),
    '_set_tracing_state': (torch._C, 'tracing_paused'),
    '_are_functorch_transforms_active': (torch._C, '_is_in_transform'),
    '_current_level': (forward_ad, '_is_in_dual_level'),
    '_functorch': (torch._C, 'is_batched'),
    'is_batchedtensor': (torch._C._functorch, 'is_batched'),
    'is_legacy_batchedtensor': (torch._C._functorch, 'is_batched'),
    '_is_exporting_flag': (torch.compiler, 'is_exporting'),
    '_dispatch_has_kernel_for_dispatch_key': (torch._C, 'has_kernels'),
    'batch_norm_update_stats': (torch, 'batch_variance'),
    '_foreach_add_': (torch, 'add_all_'),
    '_foreach_mul_': (torch, 'multiply_all_'),
    'get_capabilities': (torch.cpu, 'has_float16_arithmetic'),
    'FakeTensor': (fake_tensor, 'FakeTensor'),
}
CASE = Case(2, 6, 9, 11, 5, 3)


def test_private_names_stand_in_one_file():
    """And all that stand there are taken away below."""
    package = Path(torch_internals.__file__).parent
    private = re.compile(r'\b(?:torch(?:\.\w+)*|forward_ad)\._(?!_)\w*')
    texts = {path: path.read_text(encoding='utf-8') for path in package.rglob('*.py')}
    text = texts.pop(package / 'torch_internals.py')
    assert {path: found for path in texts if (found := private.findall(texts[path]))} == {}
    looked_up = re.findall(r"(?:hasattr|getattr)\(\s*[\w.]+,\s*'(\w+)'", text)
    looked_up += re.findall(r'from torch\._[\w.]+ import (\w+)', text)
    assert sorted(looked_up) == sorted(PRIVATE)


def implementation_of(function):
    # A wrapped function of two is told apart by what it wraps.
    return getattr(getattr(function, '__wrapped__', function), '__code__', function)


@pytest.fixture(params=PRIVATE)
def gone(request, monkeypatch):
    """The package as it is where torch lacks a name."""
    owner, user = PRIVATE[request.param]
    spec = importlib.util.spec_from_file_location('of_another_torch', torch_internals.__file__)
    other = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as context:
        context.delattr(owner, request.param)
        spec.loader.exec_module(other)
    monkeypatch.setitem(sys.modules, other.__name__, other)
    usual, replaced = (implementation_of(getattr(m, user)) for m in (torch_internals, other))
    assert usual != replaced, 'nothing takes its place'
    for module in (dispatch, functional, library, operators):
        for name, value in vars(torch_internals).items():
            if not name.startswith('__') and getattr(module, name, None) is value:
                monkeypatch.setattr(module, name, getattr(other, name))
    dispatch.clear_cache()
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def convolve(x, weight, bias):
    return depthwise_conv2d(x, weight, bias, implementation='op')


def call_operator(x, weight, bias):
    return torch.ops.unireplknet.depthwise_conv2d(x, weight, bias)


def expected(dtype=torch.float32):
    tensors = type(inputs_of(CASE))(*(tensor.to(dtype) for tensor in inputs_of(CASE)))
    return tensors, run(reference, tensors)


class Network(nn.Module):
    """Something before and behind the convolution, so that graphs have more than it."""

    def __init__(self, implementation):
        super().__init__()
        self.conv = DepthwiseConv2d(6, kernel_size=(5, 3), implementation=implementation)

    def forward(self, x):
        return self.conv(x.sin()).cos()


@needs_op
@pytest.mark.usefixtures('gone')
class TestWithoutIt:
    @pytest.mark.parametrize('answer', ['op', 'native'])
    def test_output_and_gradients(self, faster, answer):
        faster(answer)
        tensors, results = expected()
        with RecordedCalls() as calls:
            actual = run(depthwise_conv2d, tensors)
        assert calls.implementations() == [answer]
        torch.testing.assert_close(actual, results, rtol=1e-4, atol=1e-4)
        with torch.no_grad():
            torch.testing.assert_close(convolve(*tensors[:3]), results.output, rtol=1e-4, atol=1e-4)

    def test_second_derivatives(self):
        tensors = [tensor.requires_grad_() for tensor in map(torch.clone, inputs_of(SMALL)[:3])]
        assert torch.autograd.gradgradcheck(convolve, tensors)

    @pytest.mark.parametrize('operator', [convolve, call_operator])
    def test_autocast(self, operator):
        """In the dtype of autocast, which is still on afterwards; gradients in that of the leaves."""
        tensors, results = expected()
        x, weight, bias = (tensor.clone().requires_grad_() for tensor in tensors[:3])
        with torch.autocast('cpu', torch.bfloat16):
            output = operator(x, weight, bias)
            assert torch.is_autocast_enabled('cpu')
            (grad_x,) = torch.autograd.grad(
                output, x, tensors.grad_output.bfloat16(), create_graph=True
            )
            grad_x.square().sum().backward()
        assert output.dtype is torch.bfloat16
        assert grad_x.dtype is weight.grad.dtype is torch.float32
        torch.testing.assert_close(output.float(), results.output, rtol=1e-2, atol=1e-1)
        torch.testing.assert_close(grad_x, results.grad_x, rtol=1e-2, atol=1e-1)

    @pytest.mark.parametrize('implementation', ['auto', 'op'])
    def test_compiled(self, faster, implementation):
        faster('op')
        network = Network(implementation)
        compiled = torch.compile(network, backend='aot_eager', fullgraph=True)
        x = inputs_of(CASE).x.float()
        assert_same_step(network, compiled, x)

    def test_compiled_under_autocast(self):
        network = Network('op')
        compiled = torch.compile(network, backend='aot_eager', fullgraph=True)
        x = inputs_of(CASE).x.float()
        with torch.autocast('cpu', torch.bfloat16):
            torch.testing.assert_close(compiled(x), network(x))

    @pytest.mark.parametrize('implementation', ['auto', 'op'])
    def test_exported(self, faster, implementation):
        faster('op')
        network = Network(implementation).eval()
        x = inputs_of(CASE).x.float()
        file = io.BytesIO()
        torch.export.save(torch.export.export(network, (x,), strict=False), file)
        file.seek(0)
        program = torch.export.load(file)
        targets = [str(node.target) for node in program.graph.nodes]
        wanted = 'unireplknet.depthwise_conv2d' if implementation == 'op' else 'aten.conv2d'
        assert f'{wanted}.default' in targets
        torch.testing.assert_close(program.module()(x), network(x))

    @pytest.mark.filterwarnings('error::torch.jit.TracerWarning')
    @pytest.mark.parametrize('implementation', ['auto', 'op'])
    def test_traced(self, faster, implementation):
        faster('op')
        network = Network(implementation).eval()
        x = inputs_of(CASE).x.float()
        traced = torch.jit.trace(network, x)
        node = 'unireplknet::depthwise_conv2d' if implementation == 'op' else 'aten::_convolution'
        assert node in str(traced.inlined_graph)
        other = torch.randn(3, 6, 7, 21)
        torch.testing.assert_close(traced(other), network(other))

    def test_transforms(self, faster):
        """Of torch.func, also of functions that close over what they do not transform."""
        faster('op')
        x, weight, bias, tangent = (tensor.float() for tensor in inputs_of(CASE))
        trained = weight.clone().requires_grad_()

        def loss(convolution, x, weight):
            return convolution(x, weight, bias).square().sum()

        def over_images(convolution):
            return torch.func.vmap(lambda image: loss(convolution, image, weight))(x[:, None])

        def gradient(convolution):
            return torch.func.grad(lambda weight: loss(convolution, x, weight))(weight)

        def closed_over(convolution):
            return torch.func.grad(lambda s: s * loss(convolution, x, trained))(torch.ones(()))

        def product(convolution):
            return torch.func.jvp(lambda x: loss(convolution, x, weight), (x,), (tangent,))[1]

        for transform in (over_images, gradient, closed_over, product):
            torch.testing.assert_close(
                transform(depthwise_conv2d), transform(reference), rtol=1e-4, atol=1e-3
            )
        with pytest.raises(RuntimeError, match=r"implementation='op'.*torch.func.*native"):
            gradient(convolve)

    def test_forward_mode(self, faster):
        faster('op')
        x, weight, bias, tangent = (tensor.float() for tensor in inputs_of(CASE))
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, tangent)
            output = forward_ad.unpack_dual(depthwise_conv2d(dual, weight, bias))
        torch.testing.assert_close(output.tangent, reference(tangent, weight, None))

    @pytest.mark.parametrize('implementation', ['auto', 'op'])
    def test_fake_tensors(self, faster, implementation):
        faster('op')
        with fake_tensor.FakeTensorMode():
            x, weight = torch.empty(2, 6, 9, 11), torch.empty(6, 1, 5, 3)
            output = depthwise_conv2d(x, weight, implementation=implementation)
        assert output.shape == x.shape and output.stride() == x.stride()

    def test_loaded_once(self):
        """A second definition of the operators would end the process."""
        assert library._is_loaded('cpu')
        path = str(library.directory() / library.FILE_NAMES['cuda'])
        assert library._is_loaded('cuda') == (path in torch.ops.loaded_libraries)


SMALL = Case(1, 2, 4, 5, 3, 3)


def assert_same_step(network, compiled, x):
    results = []
    for function in (network, compiled):
        network.zero_grad()
        output = function(x)
        output.square().sum().backward()
        results.append([output.detach(), *(p.grad.clone() for p in network.parameters())])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


@needs_op
def test_the_compiler_may_be_imported_first():
    """What it runs while it traces is marked when the package is imported, or later, as elsewhere here."""
    code = """
import torch, torch._dynamo
from unireplknet_ops import depthwise_conv2d
x, weight = torch.ones(1, 2, 5, 5), torch.ones(2, 1, 3, 3)
function = torch.compile(depthwise_conv2d, backend='eager', fullgraph=True)
print(torch.equal(function(x, weight), depthwise_conv2d(x, weight)))
"""
    done = run_python(code)
    assert done.returncode == 0 and done.stdout == 'True\n', done.stderr
