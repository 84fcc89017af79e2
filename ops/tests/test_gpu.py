"""What only a GPU has: streams, graphs, more than one device, and maps that a CPU would take long for."""

import pytest
import torch
from op_cases import Case, Tensors, inputs_of, reason_to_skip, reference, run

from unireplknet_ops import depthwise_conv2d

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(reason_to_skip('cuda') is not None, reason=reason_to_skip('cuda') or ''),
]

CASE = Case(4, 32, 28, 28, 13, 13)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def convolve(x, weight, bias=None):
    return depthwise_conv2d(x, weight, bias, implementation='op')


def tensors_of(case: Case, dtype: torch.dtype, device: str = 'cuda') -> Tensors:
    return Tensors(*(tensor.to(device, dtype) for tensor in inputs_of(case)))


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_cuda_non_default_stream(dtype):
    """Work of the op waits for what is in its stream: here a long one that writes its input."""
    tensors = tensors_of(CASE, dtype)
    expected = run(convolve, tensors)
    stream = torch.cuda.Stream()
    late = torch.zeros_like(tensors.x)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(tensors.x)
        results = run(convolve, tensors._replace(x=late))
    stream.synchronize()
    for actual, result in zip(results, expected, strict=True):
        assert torch.equal(actual, result)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_cuda_graph_of_a_training_step(dtype):
    static = tensors_of(CASE, dtype)
    leaves = [tensor.clone().requires_grad_() for tensor in static[:3]]

    def step():
        output = convolve(*leaves)
        return output, *torch.autograd.grad(output, leaves, static.grad_output)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    for factor in (1, -0.5):
        with torch.no_grad():
            leaves[0].copy_(static.x * factor)
        graph.replay()
        expected = step()
        for actual, result in zip(results, expected, strict=True):
            assert torch.equal(actual, result)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason='one GPU')
def test_cuda_second_device():
    """Also while the first is the current one."""
    first, second = (tensors_of(CASE, torch.bfloat16, f'cuda:{index}') for index in range(2))
    assert torch.cuda.current_device() == 0
    for actual, expected in zip(run(convolve, second), run(convolve, first), strict=True):
        assert actual.device == second.x.device
        assert torch.equal(actual.cpu(), expected.cpu())
    with pytest.raises(RuntimeError):
        convolve(first.x, second.weight)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize(
    'case',
    [
        Case(64, 96, 56, 56, 7, 7),
        Case(2, 384, 50, 84, 13, 13),
        Case(1, 64, 100, 168, 31, 31),
        Case(2, 48, 112, 112, 3, 3, 5),
    ],
    ids=str,
)
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last], ids=str)
def test_cuda_maps_of_a_real_network(case, dtype, memory_format):
    """Against the native convolution in float64, on the GPU."""
    tensors = tensors_of(case, dtype)
    tensors = tensors._replace(
        x=tensors.x.contiguous(memory_format=memory_format),
        grad_output=tensors.grad_output.contiguous(memory_format=memory_format),
    )
    results = run(
        lambda *t: depthwise_conv2d(*t, dilation=case.dilation, implementation='op'), tensors
    )
    doubles = Tensors(*(tensor.double() for tensor in tensors))
    expected = run(lambda *t: reference(*t, dilation=case.dilation), doubles)
    tolerance = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    for actual, result in zip(results, expected, strict=True):
        error = (actual.double() - result).norm() / result.norm()
        assert error < tolerance


@pytest.mark.parametrize(
    ('dtype', 'dilation'),
    [(torch.bfloat16, 1), (torch.float32, 1), (torch.bfloat16, 2)],
    ids=['tensor_core', 'direct', 'column'],
)
def test_cuda_more_elements_than_32_bits_count(dtype, dilation):
    """Offsets beyond 2**31 elements: the last image is like the same image alone.

    Not bit by bit: another batch may be divided into other blocks, which add in another order.
    """
    n, c, h, w = 5, 1024, 700, 700
    assert n * c * h * w > 2**31
    needed = int(2.5 * n * c * h * w) * dtype.itemsize
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < needed:
        pytest.skip(f'{needed / 2**30:.0f} GiB of free GPU memory needed')
    x = torch.zeros(n, c, h, w, device='cuda', dtype=dtype)
    x[-1].normal_()
    weight = torch.randn(c, 1, 3, 3, device='cuda', dtype=dtype)
    op = torch.ops.unireplknet
    one_rounding = 1e-6 if dtype == torch.float32 else 2**-7
    for convolution in (op.depthwise_conv2d, op.depthwise_conv2d_backward_input):
        last = convolution(x, weight, dilation=dilation)[-1].clone()
        alone = convolution(x[-1:], weight, dilation=dilation)[0]
        torch.testing.assert_close(last, alone, rtol=one_rounding, atol=1e-5)
    grad_output = torch.zeros_like(x)
    grad_output[-1].normal_()
    whole, alone = (
        op.depthwise_conv2d_backward_weight(grad_output[part], x[part], [3, 3], dilation).double()
        for part in (slice(None), slice(n - 1, n))
    )
    assert (whole - alone).norm() < (1e-4 if dtype == torch.float32 else 8e-3) * alone.norm()


def test_cuda_wait_for_nothing():
    """A call returns before the GPU is done: no synchronisation hides in it."""
    x, weight, bias, _ = tensors_of(CASE, torch.bfloat16)
    convolve(x, weight, bias)
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)
    convolve(x, weight, bias)
    event = torch.cuda.Event()
    event.record()
    assert not event.query()
    torch.cuda.synchronize()
