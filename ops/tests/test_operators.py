"""The torch operators: derivatives, fake functions, autocast, FLOPs, and the graphs that record them."""

import functools
import io
import itertools
import warnings

import pytest
import torch
from op_cases import Case, RecordedCalls, inputs_of, reason_to_skip, reference
from torch import nn
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode

from unireplknet_ops import DepthwiseConv2d, convolution_rules, depthwise_conv2d
from unireplknet_ops.dispatch import Passes

pytestmark = pytest.mark.skipif(
    reason_to_skip('cpu') is not None, reason='no compiled op: the operators are not defined'
)

ops = torch.ops.unireplknet
SAMPLES = (
    Case(2, 3, 6, 5, 3, 3),
    Case(1, 4, 5, 7, 5, 1, 2),
    Case(2, 1, 3, 4, 7, 5),
    Case(0, 2, 4, 4, 3, 3),
)
# The operators' arguments from a case's x, weight, bias, grad_output.
CALLS = {
    'depthwise_conv2d': lambda case, x, weight, bias, g: (x, weight, bias, case.dilation),
    'depthwise_conv2d_backward_input': lambda case, x, weight, bias, g: (g, weight, case.dilation),
    'depthwise_conv2d_backward_weight': lambda case, x, weight, bias, g: (
        g,
        x,
        [case.kh, case.kw],
        case.dilation,
    ),
}


def arguments_of(name, case, dtype, device, requires_grad=True, channels_last=False) -> tuple:
    tensors = [tensor.to(device, dtype) for tensor in inputs_of(case)]
    if channels_last:
        tensors = [
            t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t for t in tensors
        ]
    tensors = [tensor.detach().requires_grad_(requires_grad) for tensor in tensors]
    return CALLS[name](case, *tensors)


@pytest.mark.parametrize('name', CALLS)
@pytest.mark.parametrize('case', SAMPLES, ids=str)
def test_first_and_second_derivatives(name, case):
    """Against finite differences, in float64, which only the CPU has."""
    arguments = arguments_of(name, case, torch.float64, 'cpu')
    tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
    constants = arguments[len(tensors) :]

    def call(*tensors):
        return getattr(ops, name)(*tensors, *constants)

    assert torch.autograd.gradcheck(call, tensors)
    assert torch.autograd.gradgradcheck(call, tensors)


def test_derivatives_of_the_function():
    """Whose first derivative does not go through the operators' own registration."""
    x, weight, bias, _ = (t.requires_grad_() for t in map(torch.clone, inputs_of(SAMPLES[0])))

    def call(*tensors):
        return depthwise_conv2d(*tensors, implementation='op')

    assert torch.autograd.gradcheck(call, (x, weight, bias))
    assert torch.autograd.gradgradcheck(call, (x, weight, bias))


def test_gradient_penalty_as_the_native_one(device):
    case = Case(2, 8, 14, 14, 7, 7)
    results = {}
    for implementation in ('op', 'native'):
        x, weight, bias, grad_output = (t.to(device, torch.float32) for t in inputs_of(case))
        weight.requires_grad_()
        x.requires_grad_()
        output = depthwise_conv2d(x, weight, bias, implementation=implementation)
        (grad_x,) = torch.autograd.grad(output, x, grad_output, create_graph=True)
        (output.square().mean() + grad_x.square().mean()).backward()
        results[implementation] = torch.cat([x.grad.flatten(), weight.grad.flatten()])
    torch.testing.assert_close(results['op'], results['native'], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', CALLS)
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('case', SAMPLES, ids=str)
def test_registration(device, name, case, channels_last):
    """Schema, fake function, autograd, traced with static and symbolic sizes."""
    arguments = arguments_of(name, case, torch.float32, device, channels_last=channels_last)
    results = torch.library.opcheck(getattr(ops, name).default, arguments)
    assert set(results.values()) == {'SUCCESS'}


@pytest.mark.parametrize('name', CALLS)
def test_fake_output_is_like_the_real_one(device, name):
    for case in (*SAMPLES, Case(1, 1, 5, 5, 3, 3), Case(3, 4, 1, 1, 3, 3)):
        for channels_last in (False, True):
            for dtype in (torch.float32, torch.bfloat16):
                arguments = arguments_of(name, case, dtype, device, False, channels_last)
                real = getattr(ops, name)(*arguments)
                with torch._subclasses.FakeTensorMode() as mode:
                    fake = getattr(ops, name)(
                        *(mode.from_tensor(a) if torch.is_tensor(a) else a for a in arguments)
                    )
                assert fake.stride() == real.stride()
                assert (fake.shape, fake.dtype, fake.device.type) == (real.shape, dtype, device)


def runs(x, *arguments) -> bool:
    try:
        return ops.depthwise_conv2d(x, *arguments).shape == x.shape
    except RuntimeError:
        return False


@pytest.mark.parametrize('dilation', [1, 2, 15, 16])
def test_python_knows_the_limits_of_the_kernels(device, dilation):
    x = torch.zeros(1, 1, 2, 3, device=device)
    answers = set()
    for size in range(1, 67):
        for kernel_size in ((size, 1), (1, size)):
            weight = torch.zeros(1, 1, *kernel_size, device=device)
            is_within = convolution_rules.limit_reached(kernel_size, dilation) is None
            assert runs(x, weight, None, dilation) == is_within, kernel_size
            answers.add(is_within)
    assert answers == ({False} if dilation == 16 else {True, False})


def test_python_knows_the_dtypes_of_the_kernels(device):
    dtypes = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    found = set()
    for dtype in dtypes:
        try:
            x, weight = (
                torch.zeros(shape, device=device).to(dtype)
                for shape in ((1, 1, 3, 3), (1, 1, 1, 1))
            )
        except (RuntimeError, TypeError):  # no tensor of such a dtype can be made from numbers
            continue
        if runs(x, weight):
            found.add(dtype)
    assert found == set(convolution_rules.DTYPES[device])


def test_python_and_the_kernels_agree_on_what_is_channels_last(device):
    """For maps whose axes lie in any order in memory, and for slices of them."""
    seen = []
    for order in itertools.permutations(range(4)):
        for sizes in ((2, 3, 4, 5), (2, 1, 4, 5), (1, 3, 1, 5), (2, 3, 1, 1)):
            whole = torch.zeros([sizes[axis] for axis in order], device=device)
            x = whole.permute([order.index(axis) for axis in range(4)])
            assert x.shape == sizes
            for view in (x, x[:, :, :, ::2], x[:, :2], x[:1], x[:, :, 1:]):
                output = ops.depthwise_conv2d(
                    view, torch.zeros(view.shape[1], 1, 1, 1, device=device)
                )
                like = torch.empty(
                    view.shape,
                    memory_format=torch.channels_last
                    if convolution_rules.is_channels_last(view)
                    else torch.contiguous_format,
                )
                assert output.stride() == like.stride(), (view.shape, view.stride())
                seen.append(convolution_rules.is_channels_last(view))
    assert 50 < sum(seen) < len(seen) - 50


@pytest.mark.parametrize('device_type', ['cpu', 'meta'])
@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('depthwise_conv2d', ((2, 4, 8, 8), (4, 1, 4, 4))),
        ('depthwise_conv2d', ((2, 4, 8, 8), (5, 1, 3, 3))),
        ('depthwise_conv2d', ((2, 4, 8, 8), (4, 1, 65, 3))),
        ('depthwise_conv2d', ((4, 8, 8), (4, 1, 3, 3))),
        ('depthwise_conv2d', ((2, 4, 8, 8), (4, 1, 3, 3), (3,))),
        ('depthwise_conv2d', ((2, 4, 8, 8), (4, 1, 3, 3), None, 0)),
        ('depthwise_conv2d', ((2, 4, 8, 8), (4, 1, 3, 3), None, 16)),
        ('depthwise_conv2d', ((2, 4, 8, 8), (4, 1, 11, 3), None, 2)),
        ('depthwise_conv2d_backward_input', ((2, 4, 8, 8), (4, 1, 4, 4))),
        ('depthwise_conv2d_backward_input', ((2, 4, 8, 8), (4, 3, 3, 3))),
        ('depthwise_conv2d_backward_weight', ((2, 4, 8, 8), (2, 4, 8, 9), [3, 3])),
        ('depthwise_conv2d_backward_weight', ((2, 4, 8, 8), (2, 4, 8, 8), [3])),
        ('depthwise_conv2d_backward_weight', ((2, 4, 8, 8), (2, 4, 8, 8), [3, 4])),
        ('depthwise_conv2d_backward_weight', ((2, 4, 8, 8), (2, 4, 8, 8), [3, 65])),
        ('depthwise_conv2d_backward_weight', ((2, 4, 8, 8), (2, 4, 8, 8), [-1, 3])),
    ],
)
def test_wrong_arguments_of_kernels_and_fake_functions(name, arguments, device_type):
    arguments = [
        torch.zeros(argument, device=device_type) if isinstance(argument, tuple) else argument
        for argument in arguments
    ]
    with pytest.raises((RuntimeError, ValueError)) as error:
        getattr(ops, name)(*arguments)
    assert 'C++' not in str(error.value) and '.cpp' not in str(error.value)


def test_mixed_dtypes_are_refused_by_kernels_and_fake_functions():
    for device_type in ('cpu', 'meta'):
        x = torch.zeros(1, 2, 4, 4, device=device_type)
        weight = torch.zeros(2, 1, 3, 3, device=device_type, dtype=torch.bfloat16)
        with pytest.raises(RuntimeError):
            ops.depthwise_conv2d(x, weight)
        with pytest.raises(RuntimeError):
            ops.depthwise_conv2d_backward_weight(x, x.bfloat16(), [3, 3])


def test_flops_are_those_of_the_native_convolution():
    x = torch.randn(2, 6, 9, 10, requires_grad=True)
    weight = torch.randn(6, 1, 5, 3, requires_grad=True)
    totals = {}
    for implementation in ('native', 'op'):
        with FlopCounterMode(display=False) as counter:
            output = depthwise_conv2d(x, weight, implementation=implementation)
            forward = counter.get_total_flops()
            output.sum().backward()
        totals[implementation] = forward, counter.get_total_flops()
    taps = 2 * 6 * 9 * 10 * 5 * 3
    assert totals['op'] == (2 * taps, 3 * 2 * taps)
    assert totals['native'][0] == totals['op'][0]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('direct', [False, True], ids=['function', 'operator'])
def test_autocast(device, dtype, direct):
    x, weight, bias, grad_output = (
        tensor.to(device, torch.float32) for tensor in inputs_of(Case(2, 8, 14, 14, 7, 7))
    )
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]

    def convolve(*tensors):
        if direct:
            return ops.depthwise_conv2d(*tensors)
        return depthwise_conv2d(*tensors, implementation='op')

    with torch.autocast(device, dtype):
        output = convolve(*leaves)
        with torch.autocast(device, enabled=False):
            assert convolve(*leaves).dtype == torch.float32
        doubles = [leaf.double() for leaf in leaves]
        if device == 'cpu':
            assert convolve(*doubles).dtype == torch.float64
    assert output.dtype == dtype
    expected = ops.depthwise_conv2d(*(leaf.to(dtype) for leaf in leaves))
    assert torch.equal(output, expected)
    grads = torch.autograd.grad(output, leaves, grad_output.to(dtype))
    expected = torch.autograd.grad(expected, leaves, grad_output.to(dtype))
    for actual, result in zip(grads, expected, strict=True):
        assert actual.dtype == torch.float32
        assert torch.equal(actual, result)


def test_autocast_casts_what_f_conv2d_casts():
    """Every floating dtype but float64, also when input and weight differ."""
    with torch.autocast('cpu', torch.bfloat16):
        for x_dtype in (torch.float32, torch.float16, torch.bfloat16):
            for weight_dtype in (torch.float32, torch.float16, torch.bfloat16):
                x = torch.ones(1, 2, 5, 5, dtype=x_dtype)
                weight = torch.ones(2, 1, 3, 3, dtype=weight_dtype)
                expected = depthwise_conv2d(x, weight, implementation='native')
                actual = depthwise_conv2d(x, weight, implementation='op')
                assert actual.dtype == expected.dtype == torch.bfloat16
                assert torch.equal(actual, expected)


def test_second_derivative_within_autocast_keeps_its_dtype():
    x, weight, _, grad_output = (tensor.float() for tensor in inputs_of(SAMPLES[0]))
    x.requires_grad_()
    grad_output.requires_grad_()
    output = depthwise_conv2d(x, weight, implementation='op')
    with torch.autocast('cpu'):
        (grad_x,) = torch.autograd.grad(output, x, grad_output, create_graph=True)
        (second,) = torch.autograd.grad(grad_x, grad_output, x)
    assert torch.equal(second, depthwise_conv2d(x, weight, implementation='op'))


class Network(nn.Module):
    """A few layers around a depthwise convolution with bias."""

    def __init__(self, implementation='op', channels=8, kernel_size=7):
        super().__init__()
        self.before = nn.Conv2d(3, channels, 1)
        self.conv = DepthwiseConv2d(
            channels, kernel_size=kernel_size, implementation=implementation
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(self.conv(self.before(x)).relu()).mean((2, 3))


@pytest.fixture
def no_compiled_code():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def training_step(network, function, x) -> list[torch.Tensor]:
    network.zero_grad()
    output = function(x)
    output.square().sum().backward()
    return [output.detach(), *(parameter.grad.clone() for parameter in network.parameters())]


@pytest.mark.usefixtures('no_compiled_code')
@pytest.mark.parametrize('implementation', ['op', 'auto'])
def test_compiled_training_step(device, implementation):
    torch.manual_seed(0)
    network = Network(implementation).to(device)
    compiled = torch.compile(network, backend='aot_eager', fullgraph=True)
    x = torch.randn(2, 3, 14, 13, device=device)
    expected = training_step(network, network, x)
    for actual, result in zip(training_step(network, compiled, x), expected, strict=True):
        torch.testing.assert_close(actual, result, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures('no_compiled_code')
@pytest.mark.parametrize('passes', [('native', 'op', 'op'), ('op', 'native', 'op')], ids=str)
def test_compiled_training_step_of_mixed_passes(device, faster, passes):
    """Without a graph break, each pass on what was chosen for it, with and without autocast."""
    faster(Passes(*passes))
    torch.manual_seed(0)
    network = Network('auto').to(device)
    compiled = torch.compile(network, backend='aot_eager', fullgraph=True)
    x = torch.randn(2, 3, 14, 13, device=device)
    for dtype, tolerance in ((None, 1e-4), (torch.bfloat16, 0.05)):
        with torch.autocast(device, dtype, enabled=dtype is not None):
            expected = training_step(network, network, x)
            with RecordedCalls() as calls:
                results = training_step(network, compiled, x)
        for actual, result in zip(results, expected, strict=True):
            torch.testing.assert_close(actual, result, rtol=tolerance, atol=tolerance)
        assert 'depthwise_conv2d_backward_weight' in calls.names
        assert ('depthwise_conv2d' in calls.names) == (passes[0] == 'op')
        assert ('depthwise_conv2d_backward_input' in calls.names) == (passes[1] == 'op')


@pytest.mark.usefixtures('no_compiled_code')
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
def test_compiled_by_inductor(device, memory_format):
    """With code of its own before the op, forward and backward; little of it, for it takes seconds."""

    def function(x, weight):
        return depthwise_conv2d(x.sin(), weight, implementation='op')

    x, weight, _, grad_output = (
        tensor.to(device, torch.float32) for tensor in inputs_of(Case(2, 8, 9, 11, 5, 5))
    )
    x = x.to(memory_format=memory_format).requires_grad_()
    weight.requires_grad_()
    output = torch.compile(function, fullgraph=True)(x, weight)
    expected = function(x, weight)
    assert output.stride() == expected.stride()
    torch.testing.assert_close(output, expected)
    grads = torch.autograd.grad(output, (x, weight), grad_output)
    for actual, result in zip(
        grads, torch.autograd.grad(expected, (x, weight), grad_output), strict=True
    ):
        torch.testing.assert_close(actual, result)


@pytest.mark.usefixtures('no_compiled_code')
@pytest.mark.parametrize('answer', ['op', 'native'])
def test_compiled_auto_takes_what_is_faster(device, faster, answer):
    faster(answer)
    graphs = []

    def backend(graph, inputs):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    compiled = torch.compile(depthwise_conv2d, backend=backend, fullgraph=True)
    x, weight, bias, _ = (t.to(device, torch.float32) for t in inputs_of(SAMPLES[0]))
    torch.testing.assert_close(
        compiled(x, weight, bias), reference(x, weight, bias), rtol=1e-4, atol=1e-4
    )
    (targets,) = graphs
    assert any('unireplknet.depthwise_conv2d' in target for target in targets) == (answer == 'op')
    assert any('conv2d of type' in target for target in targets) == (answer == 'native')


@pytest.mark.usefixtures('no_compiled_code')
@pytest.mark.parametrize('forced', ['op', 'native'])
def test_compiled_with_the_environment(monkeypatch, forced):
    monkeypatch.setenv('UNIREPLKNET_DWCONV', forced)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    x, weight, bias, _ = (tensor.float() for tensor in inputs_of(SAMPLES[0]))
    torch.compile(depthwise_conv2d, backend=backend, fullgraph=True)(x, weight, bias)
    (graph,) = graphs
    assert ('unireplknet.depthwise_conv2d' in str(graph.graph)) == (forced == 'op')


@pytest.mark.usefixtures('no_compiled_code')
def test_compiled_backward_of_an_eager_forward(device):
    """`torch._dynamo.compiled_autograd` traces the function's own derivative."""
    leaves = [t.to(device, torch.float32).requires_grad_() for t in inputs_of(SAMPLES[0])[:3]]
    expected = torch.autograd.grad(
        depthwise_conv2d(*leaves, implementation='op').square().sum(), leaves
    )
    loss = depthwise_conv2d(*leaves, implementation='op').square().sum()
    compiler = functools.partial(torch.compile, backend='aot_eager', fullgraph=True)
    with torch._dynamo.compiled_autograd._enable(compiler):
        loss.backward()
    for leaf, result in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, result)


@pytest.mark.usefixtures('no_compiled_code')
def test_one_compiled_graph_for_all_sizes(device):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    network = Network().to(device).eval()
    compiled = torch.compile(network, backend=backend, fullgraph=True, dynamic=True)
    for shape in ((2, 3, 14, 13), (3, 3, 9, 17), (5, 3, 32, 4)):
        x = torch.randn(shape, device=device)
        torch.testing.assert_close(compiled(x), network(x))
    assert len(graphs) == 1


@pytest.mark.usefixtures('no_compiled_code')
def test_compiled_autocast(device):
    def step(x, weight):
        with torch.autocast(device, torch.bfloat16):
            return depthwise_conv2d(x, weight, implementation='op')

    x, weight = (t.to(device, torch.float32) for t in inputs_of(SAMPLES[0])[:2])
    weight.requires_grad_()
    output = torch.compile(step, backend='aot_eager', fullgraph=True)(x, weight)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, step(x, weight))
    output.sum().backward()
    assert weight.grad.dtype == torch.float32 and weight.grad.abs().sum() > 0


@pytest.mark.usefixtures('no_compiled_code')
def test_compiled_errors_name_the_value():
    compiled = torch.compile(depthwise_conv2d, backend='eager', fullgraph=True)
    with pytest.raises(Exception, match='kernel size 4x4 is even'):
        compiled(torch.zeros(1, 2, 8, 8), torch.zeros(2, 1, 4, 4))


def conv_targets(program: torch.export.ExportedProgram) -> list[str]:
    """The convolutions in the graph that are not the 1×1 one before."""
    names = [str(node.target) for node in program.graph.nodes if node.op == 'call_function']
    return [name for name in names if 'conv2d' in name][1:]


@pytest.mark.parametrize('strict', [False, True])
@pytest.mark.parametrize('implementation', ['auto', 'native', 'op'])
def test_export(device, faster, implementation, strict):
    """'auto' leaves a convolution in the graph, that any torch can load, whatever is faster here."""
    faster('op')
    network = Network(implementation).to(device).eval()
    x = torch.randn(2, 3, 14, 13, device=device)
    sizes = {'x': {0: Dim('batch', max=64), 2: Dim('height', max=512), 3: Dim('width', max=512)}}
    program = torch.export.export(network, (x,), dynamic_shapes=sizes, strict=strict)
    wanted = 'unireplknet.depthwise_conv2d' if implementation == 'op' else 'aten.conv2d'
    assert conv_targets(program) == [f'{wanted}.default']
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    other = torch.randn(5, 3, 9, 21, device=device)
    torch.testing.assert_close(loaded(other), network(other))


def test_export_for_training_has_the_gradients():
    network = Network()
    x = torch.randn(2, 3, 9, 9)
    program = torch.export.export(network, (x,))
    expected = training_step(network, network, x)
    module = program.module()
    for actual, result in zip(training_step(module, module, x), expected, strict=True):
        torch.testing.assert_close(actual, result)


@pytest.mark.parametrize('implementation', ['auto', 'op'])
def test_torchscript_trace(device, faster, implementation):
    """No warning: sizes in the trace are constants or belong to the operator."""
    faster('op')
    network = Network(implementation).to(device).eval()
    x = torch.randn(2, 3, 14, 13, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter('error', torch.jit.TracerWarning)
        traced = torch.jit.trace(network, x)
    node = 'unireplknet::depthwise_conv2d' if implementation == 'op' else 'aten::_convolution'
    assert node in str(traced.conv.graph)
    other = torch.randn(3, 3, 9, 21, device=device)
    torch.testing.assert_close(traced(other), network(other))


def test_torchscript_script(device):
    network = Network('op').to(device).eval()
    x = torch.randn(2, 3, 14, 13, device=device)
    torch.testing.assert_close(torch.jit.script(network)(x), network(x), rtol=1e-4, atol=1e-5)


def test_symbolic_trace_keeps_one_node():
    network = Network('op').eval()
    traced = torch.fx.symbolic_trace(network)
    assert depthwise_conv2d in [node.target for node in traced.graph.nodes]
    x = torch.randn(2, 3, 14, 13)
    assert torch.equal(traced(x), network(x))


@pytest.mark.parametrize('implementation', ['auto', 'op'])
@pytest.mark.parametrize('dynamo', [True, False], ids=['dynamo', 'TorchScript'])
def test_onnx_gets_a_plain_conv(implementation, dynamo):
    onnx = pytest.importorskip('onnx', reason='no onnx package')
    if dynamo:
        pytest.importorskip('onnxscript', reason='no onnxscript package')
    network = Network(implementation, kernel_size=13).eval()
    x = torch.randn(2, 3, 14, 13)
    if dynamo:
        sizes = {'x': {0: Dim('batch'), 2: Dim('height'), 3: Dim('width')}}
        program = torch.onnx.export(network, (x,), dynamo=True, dynamic_shapes=sizes)
        model = program.model_proto
    else:
        file = io.BytesIO()
        torch.onnx.export(
            network,
            (x,),
            file,
            dynamo=False,
            input_names=['x'],
            dynamic_axes={'x': {0: 'batch', 2: 'height', 3: 'width'}},
        )
        model = onnx.load_from_string(file.getvalue())
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} <= {'', 'ai.onnx'}
    convolutions = [
        {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for node in model.graph.node
        if node.op_type == 'Conv'
    ]
    assert convolutions[-1]['group'] == 8
    assert list(convolutions[-1]['pads']) == [6, 6, 6, 6]
    if (runtime := optional_import('onnxruntime')) is not None:
        other = torch.randn(3, 3, 9, 21)
        session = runtime.InferenceSession(model.SerializeToString())
        (output,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), network(other).detach())


def optional_import(name):
    try:
        return __import__(name)
    except ImportError:
        return None


def test_transforms_of_torch_func_run_natively(faster):
    faster('op')
    x, weight, bias, _ = (tensor.float() for tensor in inputs_of(SAMPLES[0]))

    def loss(weight, x):
        return depthwise_conv2d(x, weight, bias).square().sum()

    def expected(weight, x):
        return reference(x, weight, bias).square().sum()

    batch = torch.stack([x, x + 1, x - 1])
    for transform in (
        lambda f: torch.func.grad(f)(weight, x),
        lambda f: torch.func.vmap(f, (None, 0))(weight, batch),
        lambda f: torch.func.vmap(torch.func.grad(f), (None, 0))(weight, batch),
        lambda f: torch.func.jvp(f, (weight, x), (weight, x))[1],
        lambda f: torch.compile(torch.func.grad(f), backend='eager', fullgraph=True)(weight, x),
    ):
        torch.testing.assert_close(transform(loss), transform(expected), rtol=1e-4, atol=1e-3)
    for transform, inputs in (
        (torch.func.grad, x),
        (lambda f: torch.func.vmap(f, (None, 0)), batch),
    ):
        with pytest.raises(RuntimeError, match=r"implementation='op'.*torch.func.*native"):
            transform(lambda w, x: depthwise_conv2d(x, w, implementation='op').sum())(
                weight, inputs
            )


def test_forward_mode_differentiation_runs_natively(faster):
    faster('op')
    x, weight, bias, tangent = (tensor.float() for tensor in inputs_of(SAMPLES[0]))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        output = torch.autograd.forward_ad.unpack_dual(depthwise_conv2d(dual, weight, bias))
    torch.testing.assert_close(output.tangent, reference(tangent, weight, None))


def test_checkpointing_and_inference_mode(device):
    x, weight, bias, _ = (t.to(device, torch.float32) for t in inputs_of(Case(2, 8, 9, 9, 5, 5)))

    def convolve(x):
        return depthwise_conv2d(x, weight, bias, implementation='op')

    x.requires_grad_()
    (expected,) = torch.autograd.grad(convolve(x).square().sum(), x)
    output = torch.utils.checkpoint.checkpoint(convolve, x, use_reentrant=False)
    (actual,) = torch.autograd.grad(output.square().sum(), x)
    assert torch.equal(actual, expected)
    with torch.inference_mode():
        assert torch.equal(convolve(x), output)
        assert convolve(x).is_inference()


def test_checkpointing_of_what_ends_with_a_convolution(device):
    """Backward of the convolution is then the first to ask for what was saved, and computes it again."""
    x, weight, bias, grad_output = (
        t.to(device, torch.float32).requires_grad_() for t in inputs_of(Case(2, 8, 9, 9, 5, 5))
    )

    def convolve(x):
        return depthwise_conv2d(x.square(), weight, bias, implementation='op')

    inputs = (x, weight, bias)
    expected = torch.autograd.grad(convolve(x), inputs, grad_output)
    output = torch.utils.checkpoint.checkpoint(convolve, x, use_reentrant=False)
    actual = torch.autograd.grad(output, inputs, grad_output)
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_function_and_operator_run_the_same_kernel(device):
    x, weight, bias, _ = (t.to(device, torch.float32) for t in inputs_of(Case(2, 8, 9, 9, 5, 5)))
    with RecordedCalls() as calls:
        output = depthwise_conv2d(x, weight, bias, implementation='op')
        assert torch.equal(output, ops.depthwise_conv2d(x, weight, bias))
    assert calls.implementations() == ['op', 'op']
