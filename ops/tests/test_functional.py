"""`depthwise_conv2d` against float64 `F.conv2d`, its arguments, its choice, its errors."""

import functools
import itertools

import pytest
import torch
from op_cases import (
    CASES,
    ISAS,
    LAYOUTS,
    SHIFTED,
    TOLERANCES,
    Case,
    RecordedCalls,
    Results,
    Tensors,
    assert_close,
    check,
    check_instruction_set,
    dtypes_of,
    inputs_of,
    reason_to_skip,
    reference,
    run,
    run_python,
    start_python,
    with_layout,
)

from unireplknet_ops import depthwise_conv2d, dispatch, library
from unireplknet_ops.errors import UserError

SMALL = Case(2, 5, 9, 11, 5, 3)
STRIDED_CASES = [SMALL, *(case for case in CASES if case.c in (5, 16, 17, 33) or case.n == 0)]

needs_op = pytest.mark.skipif(reason_to_skip('cpu') is not None, reason='no compiled op')


def convolve(x, weight, bias=None, dilation=1):
    return depthwise_conv2d(x, weight, bias, dilation=dilation, implementation='op')


def tensors_of(case, dtype=torch.float32, device='cpu'):
    return Tensors(*(tensor.to(device, dtype) for tensor in inputs_of(case)))


@pytest.mark.usefixtures('nan_in_new_memory')
class TestNumbers:
    @pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
    @pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
    @pytest.mark.parametrize('case', CASES, ids=str)
    def test_output_and_gradients(self, device, case, layout, dtype):
        if dtype not in dtypes_of(device):
            pytest.skip(f'no {dtype} on {device}')
        check(convolve, case, dtype, device, layout)

    @pytest.mark.parametrize('layout', ['sliced', 'transposed', *SHIFTED])
    @pytest.mark.parametrize('case', STRIDED_CASES, ids=str)
    def test_views(self, device, case, layout):
        for dtype in dtypes_of(device):
            check(convolve, case, dtype, device, layout)

    def test_layouts_of_input_and_gradient_may_differ(self, device):
        x, weight, bias, grad_output = tensors_of(SMALL, device=device)
        expected = run(convolve, Tensors(x, weight, bias, grad_output))
        for layout in LAYOUTS:
            for other in LAYOUTS:
                tensors = Tensors(
                    with_layout(x, layout), weight, bias, with_layout(grad_output, other)
                )
                for actual, result in zip(run(convolve, tensors), expected, strict=True):
                    torch.testing.assert_close(actual, result)

    def test_expanded_input_and_gradient(self, device):
        """Stride 0, as the gradient of a sum has it."""

        def expanded(x, weight, bias, grad_output):
            corner = grad_output[:, :, :1, :1]
            return Tensors(x[:1].expand_as(x), weight, bias, corner.expand_as(x))

        inputs = tensors_of(SMALL, torch.float64)
        expected = run(reference, expanded(*inputs))
        magnitudes = run(reference, expanded(*(tensor.abs() for tensor in inputs)))
        tensors = expanded(*tensors_of(SMALL, torch.float32, device))
        assert 0 in tensors.x.stride() and 0 in tensors.grad_output.stride()
        for name, *numbers in zip(
            Results._fields, run(convolve, tensors), expected, magnitudes, strict=True
        ):
            assert_close(*numbers, name)

    def test_strided_weight_and_bias(self, device):
        x, weight, bias, grad_output = tensors_of(SMALL, device=device)
        expected = run(convolve, Tensors(x, weight, bias, grad_output))
        strided_weight = weight.transpose(2, 3).contiguous().transpose(2, 3)
        strided_bias = torch.stack([bias, bias + 1], dim=1)[:, 0]
        assert not strided_weight.is_contiguous() and not strided_bias.is_contiguous()
        actual = run(convolve, Tensors(x, strided_weight, strided_bias, grad_output))
        for result, number in zip(actual, expected, strict=True):
            assert torch.equal(result, number)

    @pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
    def test_infinity_and_nan_stay_where_they_are(self, device, dtype):
        """Only the outputs that see the number change, and none of another channel or image.

        On tensor cores also those up to 15 columns beside: they multiply the number by zeros.
        """
        if dtype not in dtypes_of(device):
            pytest.skip(f'no {dtype} on {device}')
        beside = 15 if device == 'cuda' and dtype != torch.float32 else 0
        case = Case(2, 18, 11, 45, 5, 5)
        x, weight, bias, _ = tensors_of(case, dtype, device)
        clean = convolve(x, weight, bias)
        for number in (torch.inf, torch.nan):
            x[1, 3, 4, 6] = number
            touched = torch.zeros_like(x, dtype=torch.bool)
            touched[1, 3, 2:7, 4:9] = True
            compared = ~touched
            compared[1, 3, 2:7, max(0, 4 - beside) : 9 + beside] = False
            output = convolve(x, weight, bias)
            assert torch.equal(output[compared], clean[compared])
            assert not output[
                touched & (reference(touched.float(), weight.float().abs(), None) > 0)
            ][0].isfinite()


@pytest.mark.usefixtures('nan_in_new_memory')
def test_memory_is_poisoned_where_it_is_new(device):
    assert torch.empty(3, 5, device=device).isnan().all()
    assert torch.empty(3, 5, device=device, dtype=torch.bfloat16).isnan().all()


def test_without_bias_and_without_gradients(device):
    x, weight, _, grad_output = tensors_of(SMALL, device=device)
    expected = reference(x.double(), weight.double(), None)
    torch.testing.assert_close(convolve(x, weight).double(), expected)
    for names in ('x', 'weight', 'x weight'):
        leaves = dict(x=x.clone(), weight=weight.clone())
        wanted = [leaves[name].requires_grad_() for name in names.split()]
        output = convolve(**leaves)
        torch.testing.assert_close(output.double(), expected)
        grads = torch.autograd.grad(output, wanted, grad_output)
        native = torch.autograd.grad(reference(**leaves, bias=None), wanted, grad_output)
        for actual, result in zip(grads, native, strict=True):
            torch.testing.assert_close(actual, result, rtol=1e-4, atol=1e-4)


def test_no_gradient_is_computed_that_nobody_asked_for(device):
    prefix = 'depthwise_conv2d_backward_'
    for needed, gradient in (('x', 'input'), ('weight', 'weight'), ('bias', None)):
        tensors = tensors_of(SMALL, device=device)._asdict()
        grad_output = tensors.pop('grad_output')
        tensors[needed].requires_grad_()
        output = convolve(**tensors)
        with RecordedCalls() as calls:
            output.backward(grad_output)
        assert [name for name in calls.names if name.startswith(prefix)] == (
            [prefix + gradient] if gradient else []
        )
        assert tensors[needed].grad is not None


@pytest.mark.parametrize('layout', LAYOUTS)
def test_memory_format_of_the_output_is_that_of_the_input(device, layout):
    x, weight, bias, _ = tensors_of(SMALL, device=device)
    output = convolve(with_layout(x, layout), weight, bias)
    is_channels_last = layout == 'channels_last'
    assert output.is_contiguous(memory_format=torch.channels_last) == is_channels_last
    assert output.is_contiguous() == (not is_channels_last)


def test_memory_format_of_the_output_is_as_native(device):
    """For maps whose axes lie in any order in memory, and for slices of them along each axis."""
    seen = set()
    for order in itertools.permutations(range(4)):
        sizes = (4, 6, 8, 10)
        whole = torch.zeros([sizes[axis] for axis in order], device=device)
        x = whole.permute([order.index(axis) for axis in range(4)])
        slices = (x[::2], x[:, ::2], x[:, 1:3], x[:, :, ::2], x[:, :, 1:], x[..., ::2], x[..., 3:])
        for view in (x, *slices):
            weight = torch.zeros(view.shape[1], 1, 3, 3, device=device)
            output, native = convolve(view, weight), reference(view, weight, None)
            assert output.stride() == native.stride(), (view.shape, view.stride())
            seen.add((view.is_contiguous(), output.is_contiguous()))
    assert len(seen) == 3, 'NCHW stays NCHW'


@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize(
    'case', [Case(2, 37, 29, 31, 13, 13), Case(8, 24, 14, 14, 7, 7), Case(1, 3, 64, 65, 31, 31)]
)
def test_every_run_gives_the_same_bits(device, case, dtype):
    """From run to run, and for one thread and two."""
    if dtype not in dtypes_of(device):
        pytest.skip(f'no {dtype} on {device}')
    tensors = tensors_of(case, dtype, device)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 1, 2):
            torch.set_num_threads(count)
            results.append(run(convolve, tensors))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for name, first, second in zip(Results._fields, results[0], other, strict=True):
            assert torch.equal(first, second), name


CHECK_ALL = """
import torch
from op_cases import CASES, check, dtypes_of
from unireplknet_ops import depthwise_conv2d

def convolve(x, weight, bias, dilation):
    return depthwise_conv2d(x, weight, bias, dilation=dilation, implementation='op')

torch.use_deterministic_algorithms(True, warn_only=True)
for case in CASES:
    for dtype in dtypes_of('cpu'):
        for layout in ('contiguous', 'channels_last'):
            check(convolve, case, dtype, 'cpu', layout)
print(torch.ops.unireplknet.cpu_isa())
"""


@pytest.fixture(scope='module')
def runs_of_instruction_sets():
    """All at once: most of a run's time is one thread's start."""
    return {isa: start_python(CHECK_ALL, UNIREPLKNET_CPU_ISA=isa) for isa in ISAS}


@needs_op
@pytest.mark.parametrize('isa', ISAS)
def test_every_instruction_set(runs_of_instruction_sets, isa):
    check_instruction_set(isa, runs_of_instruction_sets[isa])


@needs_op
def test_unknown_instruction_set_is_named():
    path = library.directory() / library.FILE_NAMES['cpu']
    code = f"import torch; torch.ops.load_library('{path}'); torch.ops.unireplknet.cpu_isa()"
    done = run_python(code, UNIREPLKNET_CPU_ISA='avx1024')
    message = done.stderr.splitlines()[-1]
    assert (
        done.returncode != 0
        and 'UNIREPLKNET_CPU_ISA=avx1024 cannot run here: choose one of' in message
    )
    assert 'portable' in message


@needs_op
@pytest.mark.parametrize('kernel_size', [5, 7])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_maps_larger_than_the_cache(dtype, kernel_size):
    """The kernels read large channels_last maps in place, where they pack those in NCHW."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 72, 180, 250, generator=generator).to(dtype)
    assert x.nbytes > 6 << 20
    weight = torch.randn(72, 1, kernel_size, kernel_size, generator=generator).to(dtype)
    for operator in ('depthwise_conv2d', 'depthwise_conv2d_backward_input'):
        function = getattr(torch.ops.unireplknet, operator)
        output = function(x.to(memory_format=torch.channels_last), weight)
        assert output.is_contiguous(memory_format=torch.channels_last)
        tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(output, function(x, weight), rtol=tolerance, atol=tolerance)


def which_ran(*args, **kwargs) -> str:
    with RecordedCalls() as calls:
        depthwise_conv2d(*args, **kwargs)
    (implementation,) = calls.implementations()
    return implementation


@pytest.mark.parametrize('implementation', ['native', 'op'])
def test_auto_takes_what_is_faster(device, faster, implementation):
    questions = faster(implementation)
    x, weight, bias, _ = tensors_of(SMALL, device=device)
    assert which_ran(x, weight, bias) == implementation
    assert [question._asdict() for question in questions] == [
        dict(
            device=x.device,
            dtype=torch.float32,
            kernel_size=(5, 3),
            dilation=1,
            batch=2,
            channels=5,
            height=9,
            width=11,
            channels_last=False,
            needs_grad=False,
        )
    ]


MIXED = [
    dispatch.Passes(*passes)
    for passes in itertools.product(dispatch.NATIVE[:1] + dispatch.OP[:1], repeat=3)
    if len(set(passes)) > 1
]


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('passes', MIXED, ids=str)
def test_each_pass_runs_on_what_was_chosen_for_it(device, faster, passes, layout):
    """As it computes alone, also where only some gradients are wanted, and under autocast."""
    faster(passes)
    case = Case(2, 24, 9, 11, 5, 5, 2)
    tensors = tensors_of(case, device=device)
    tensors = tensors._replace(x=with_layout(tensors.x, layout))
    run_here = functools.partial(depthwise_conv2d, dilation=2)
    with RecordedCalls() as calls:
        results = run(run_here, tensors)
    names = dict(
        forward=('conv2d', 'depthwise_conv2d'),
        grad_input=('convolution_backward', 'depthwise_conv2d_backward_input'),
        grad_weight=('convolution_backward', 'depthwise_conv2d_backward_weight'),
    )
    expected = [
        native if getattr(passes, name) == 'native' else op for name, (native, op) in names.items()
    ]
    assert [name for name in calls.names if 'conv' in name] == expected
    forced = {
        name: run(functools.partial(run_here, implementation=name), tensors)
        for name in ('native', 'op')
    }
    wanted = [forced[implementation][i] for i, implementation in enumerate(passes)]
    for result, pure in zip(results, wanted, strict=False):
        assert torch.equal(result, pure)
    assert results.output.stride() == tensors.x.stride()
    assert which_ran(*tensors[:3], dilation=2) == passes.forward

    for needed, prefix in (('x', 'grad_input'), ('weight', 'grad_weight')):
        leaves = tensors._asdict()
        grad_output = leaves.pop('grad_output')
        leaf = leaves[needed] = leaves[needed].detach().clone().requires_grad_()
        with torch.autocast(device, torch.bfloat16):
            output = run_here(**leaves)
        with RecordedCalls() as calls:
            output.backward(grad_output.bfloat16())
        native, op = names[prefix]
        chosen = native if getattr(passes, prefix) == 'native' else op
        assert [name for name in calls.names if 'conv' in name] == [chosen]
        assert output.dtype == torch.bfloat16 and leaf.grad.dtype == torch.float32
        like = getattr(forced['native'], f'grad_{needed}')
        torch.testing.assert_close(leaf.grad, like, rtol=0.05, atol=0.05 * like.std().item())


@needs_op
@pytest.mark.parametrize('passes', MIXED, ids=str)
def test_second_derivatives_of_mixed_passes(faster, passes):
    faster(passes)
    tensors = [
        tensor.requires_grad_()
        for tensor in map(torch.clone, inputs_of(Case(1, 2, 4, 5, 3, 3))[:3])
    ]
    assert torch.autograd.gradgradcheck(depthwise_conv2d, tensors)


def test_everything_that_matters_is_asked_once(device, faster):
    questions = faster('op')
    x, weight, bias, _ = tensors_of(SMALL, device=device)
    trained = weight.clone().requires_grad_()
    for _ in range(2):
        depthwise_conv2d(x, weight, bias)
        depthwise_conv2d(x[:1], weight, bias)
        depthwise_conv2d(x.bfloat16(), weight.bfloat16(), bias.bfloat16())
        depthwise_conv2d(with_layout(x, 'channels_last'), weight, bias)
        depthwise_conv2d(x, weight, bias, dilation=2)
        depthwise_conv2d(x, weight[:, :, 1:-1], bias)
        depthwise_conv2d(x, trained, bias)
        depthwise_conv2d(x, weight, bias.clone().requires_grad_())
        with torch.no_grad():
            depthwise_conv2d(x, trained, bias)
        with torch.autocast(device, torch.float16):
            depthwise_conv2d(x, weight, bias)
    first, *others = (question._asdict() for question in questions)
    changes = [dict(question.items() - first.items()) for question in others]
    assert changes == [
        dict(batch=1),
        dict(dtype=torch.bfloat16),
        dict(channels_last=True),
        dict(dilation=2),
        dict(kernel_size=(3, 3)),
        dict(needs_grad=True),
        dict(dtype=torch.float16),
    ]


@needs_op
def test_another_number_of_threads_is_asked_about(faster):
    questions = faster('native')
    tensors = tensors_of(SMALL)[:3]
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 1, 2):
            torch.set_num_threads(count)
            depthwise_conv2d(*tensors)
    finally:
        torch.set_num_threads(threads)
    assert len(questions) == 2


def test_what_is_remembered_does_not_grow_for_ever(faster, monkeypatch):
    faster('native')
    monkeypatch.setattr(dispatch, 'MAXIMUM_CHOICES', 4)
    weight = torch.ones(1, 1, 3, 3)
    for height in range(1, 12):
        depthwise_conv2d(torch.ones(1, 1, height, 2), weight)
        assert 1 <= len(dispatch.choices) <= 4


@pytest.mark.parametrize('implementation', ['native', 'op'])
def test_forced(device, faster, monkeypatch, implementation):
    other = 'native' if implementation == 'op' else 'op'
    faster(other)
    tensors = tensors_of(SMALL, device=device)[:3]
    assert which_ran(*tensors, implementation=implementation) == implementation
    assert which_ran(*tensors) == other
    monkeypatch.setenv('UNIREPLKNET_DWCONV', implementation)
    assert which_ran(*tensors) == implementation
    assert which_ran(*tensors, implementation=other) == other, 'an argument goes before'
    monkeypatch.setenv('UNIREPLKNET_DWCONV', '')
    assert which_ran(*tensors) == other


class Subclass(torch.Tensor):
    """A tensor that may be more than its numbers."""


@pytest.mark.parametrize(
    'change',
    [
        lambda x, weight: (x[0], weight),
        lambda x, weight: (x, weight.as_subclass(Subclass)),
        lambda x, weight: (x.as_subclass(Subclass), weight),
        lambda x, weight: (x.to_mkldnn(), weight),
    ],
    ids=['(C, H, W)', 'subclass as weight', 'subclass as input', 'oneDNN layout'],
)
def test_tensors_that_the_op_does_not_know_are_native(faster, change):
    faster('op')
    x, weight, bias, _ = tensors_of(SMALL)
    changed, changed_weight = change(x, weight)
    output = depthwise_conv2d(changed, changed_weight, bias)
    output = output.to_dense() if output.layout is not torch.strided else output
    expected = reference(x, weight, bias).reshape(x.shape)
    assert torch.equal(torch.as_tensor(output), expected[0] if output.dim() == 3 else expected)
    assert isinstance(output, Subclass) == (Subclass in (type(changed), type(changed_weight)))


@needs_op
@pytest.mark.parametrize('dtype', [torch.complex64, torch.int64])
def test_dtypes_that_the_op_does_not_know_are_native(dtype):
    x, weight = (tensor.to(dtype) for tensor in tensors_of(SMALL)[:2])
    output = depthwise_conv2d(x, weight)
    assert torch.equal(output, reference(x, weight, None))
    with pytest.raises(RuntimeError, match=f"implementation='op'.*{dtype}.*native"):
        depthwise_conv2d(x, weight, implementation='op')


def test_float64_is_native_on_a_gpu(device):
    x, weight = tensors_of(SMALL, torch.float64, device)[:2]
    if device == 'cpu':
        assert which_ran(x, weight, implementation='op') == 'op'
    else:
        assert which_ran(x, weight) == 'native'


@needs_op
def test_kernels_that_the_op_does_not_know_are_native():
    x = tensors_of(SMALL)[0]
    for height, width, dilation in ((65, 3, 1), (3, 65, 1), (3, 3, 16), (11, 3, 2), (3, 11, 2)):
        weight = torch.randn(5, 1, height, width)
        output = depthwise_conv2d(x, weight, dilation=dilation)
        assert torch.equal(output, reference(x, weight, None, dilation))
        pattern = rf"implementation='op'.*{dilation if dilation == 16 else max(height, width)}"
        with pytest.raises(RuntimeError, match=pattern):
            depthwise_conv2d(x, weight, dilation=dilation, implementation='op')


def test_meta_tensors(device):
    x, weight, bias, _ = (tensor.to('meta') for tensor in tensors_of(SMALL))
    assert depthwise_conv2d(x, weight, bias).shape == x.shape
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = x.to(memory_format=memory_format)
        output = depthwise_conv2d(x, weight, bias, implementation='op')
        assert output.is_meta and output.shape == x.shape and output.stride() == x.stride()


def call(x=(2, 4, 8, 8), weight=(4, 1, 5, 5), bias=None, **kwargs):
    tensors = [None if shape is None else torch.zeros(shape) for shape in (x, weight, bias)]
    return depthwise_conv2d(*tensors, **kwargs)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(weight=(4, 1, 4, 4)), 'kernel size 4x4 is even'),
        (dict(weight=(4, 1, 5, 2)), 'kernel size 5x2 is even'),
        (dict(weight=(4, 1, 0, 0)), 'kernel size 0x0 is even'),
        (dict(weight=(8, 1, 5, 5)), r'weight must have the shape \(4, 1, Kh, Kw\).*\(8, 1, 5, 5\)'),
        (dict(weight=(4, 4, 5, 5)), r'weight must have the shape \(4, 1, Kh, Kw\).*\(4, 4, 5, 5\)'),
        (dict(weight=(4, 5, 5)), r'weight must have the shape .*got \(4, 5, 5\)'),
        (dict(x=(8, 8)), r'x must have the shape \(N, C, H, W\), got \(8, 8\)'),
        (dict(x=(1, 2, 4, 8, 8)), r'x must have the shape .* got \(1, 2, 4, 8, 8\)'),
        (dict(bias=(5,)), r'bias must have the shape \(4,\), got \(5,\)'),
        (dict(bias=(1, 4, 1, 1)), r'bias must have the shape \(4,\), got \(1, 4, 1, 1\)'),
        (dict(dilation=0), 'dilation must be at least 1, got 0'),
        (dict(implementation='cudnn'), "implementation='cudnn' is not known: choose one of auto"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    for implementation in ('auto', 'native', 'op'):
        with pytest.raises(ValueError, match=message) as caught:
            call(**{'implementation': implementation, **arguments})
        assert isinstance(caught.value, UserError)


def test_unknown_environment_is_named(monkeypatch):
    monkeypatch.setenv('UNIREPLKNET_DWCONV', 'fast')
    with pytest.raises(
        ValueError, match='UNIREPLKNET_DWCONV=fast is not known: choose native or op'
    ):
        call()


def test_dtypes_and_devices_that_differ(device):
    x, weight, bias, _ = tensors_of(SMALL, device=device)
    for implementation in ('auto', 'op'):
        with pytest.raises(RuntimeError):
            depthwise_conv2d(x, weight.bfloat16(), implementation=implementation)
        with pytest.raises(RuntimeError):
            depthwise_conv2d(x, weight, bias.bfloat16(), implementation=implementation)


class TestLibrary:
    """What is there without the libraries, or with broken ones: `F.conv2d`, and one line that says so."""

    CODE = """
import torch
import torch.nn.functional as F
import unireplknet_ops as ops
x, weight = torch.randn(2, 4, 9, 9), torch.randn(4, 1, 7, 7, requires_grad=True)
for _ in range(3):
    output = ops.depthwise_conv2d(x, weight)
torch.testing.assert_close(output, F.conv2d(x, weight, padding=3, groups=4), rtol=1e-4, atol=1e-4)
output.sum().backward()
layer = ops.DepthWiseConv2dImplicitGEMM(4, 7)
assert layer(x).shape == x.shape
print(ops.is_available('cpu'), ops.is_available('cuda'))
print(ops.library.missing('cpu'))
print(ops.library.missing('cuda'))
try:
    ops.depthwise_conv2d(x, weight, implementation='op')
except RuntimeError as error:
    print(error)
"""

    def run(self, directory):
        done = run_python(self.CODE, UNIREPLKNET_OPS_LIB_DIR=str(directory), UNIREPLKNET_DWCONV='')
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    def test_absent(self, tmp_path):
        stdout, stderr = self.run(tmp_path)
        available, cpu, _, error = stdout.splitlines()[-4:]
        assert available == 'False False'
        assert f'{tmp_path}/libunireplknet_ops.so does not exist' in cpu
        assert 'python -m unireplknet_ops.build' in cpu
        assert cpu in error and "implementation='op'" in error and 'native' in error
        lines = (stdout + stderr).splitlines()
        reports = [line for line in lines if 'on cpu run on F.conv2d' in line]
        assert reports == [f'Depthwise convolutions on cpu run on F.conv2d: {cpu}.']

    def test_damaged(self, tmp_path):
        (tmp_path / 'libunireplknet_ops.so').write_bytes(b'\x7fELF, and nothing more')
        available, cpu, *_ = self.run(tmp_path)[0].splitlines()[-4:]
        assert available == 'False False'
        assert f'{tmp_path}/libunireplknet_ops.so does not load' in cpu

    @needs_op
    @pytest.mark.skipif(torch.version.cuda is None, reason='this torch would not look at it')
    def test_a_damaged_cuda_library_leaves_the_cpu(self, tmp_path):
        source = library.directory() / library.FILE_NAMES['cpu']
        (tmp_path / source.name).symlink_to(source)
        (tmp_path / 'libunireplknet_ops_cuda.so').write_bytes(b'\x7fELF, and nothing more')
        lines = self.run(tmp_path)[0].splitlines()
        assert lines[-3:-1] == ['True False', 'None']
        assert 'libunireplknet_ops_cuda.so does not load' in lines[-1]


@pytest.fixture
def no_library(monkeypatch):
    monkeypatch.setitem(library._problems, 'cpu', 'no library')
    monkeypatch.setattr(library, '_reported', set())
    dispatch.clear_cache()


def test_the_environment_cannot_force_a_missing_library(no_library, monkeypatch):
    monkeypatch.setenv('UNIREPLKNET_DWCONV', 'op')
    with pytest.raises(RuntimeError, match=r'UNIREPLKNET_DWCONV=op, but .*no library.*native'):
        call()


@pytest.mark.parametrize('compiled', [False, True])
def test_a_missing_library_is_reported_once(no_library, caplog, monkeypatch, compiled):
    monkeypatch.setattr(library.logger, 'handlers', [caplog.handler])
    monkeypatch.setattr(library.logger, 'propagate', False)
    torch._dynamo.reset()
    function = torch.compile(call, backend='eager', fullgraph=True) if compiled else call
    for height in (3, 4):
        function(x=(1, 4, height, 5))
    messages = [record.message for record in caplog.records if 'F.conv2d' in record.message]
    assert messages == ['Depthwise convolutions on cpu run on F.conv2d: no library.']
