"""Check an installed `unireplknet_ops`: the compiled operators, and the Python layer above them.

    python -E -s ops/tests/check_wheel.py

For interpreters and torch releases beside the one that the tests run on; needs torch and nothing else.
Prints one line on what was checked, or ends with the traceback of what failed.
"""

import functools
import sys

import torch
from op_cases import Case, RecordedCalls, Tensors, assert_close, check, inputs_of, reference, run

import unireplknet_ops
from unireplknet_ops import DepthwiseConv2d, choose_implementation, depthwise_conv2d, library
from unireplknet_ops.depthwise import naive

CASE = Case(2, 18, 15, 13, 7, 3, 2)
dilated_reference = functools.partial(reference, dilation=CASE.dilation)
PROBLEM = dict(
    device_type='cpu',
    kernel_size=(13, 13),
    dilation=1,
    batch=8,
    channels=64,
    height=28,
    width=28,
    channels_last=False,
    needs_grad=True,
)


def convolve(x, weight, bias=None, dilation=CASE.dilation, implementation='op'):
    return depthwise_conv2d(x, weight, bias, dilation=dilation, implementation=implementation)


def check_operators() -> None:
    """Called directly; a wrong argument is an error, not a crash."""
    x, weight, bias, grad_output = inputs_of(CASE)
    ops, kernel = torch.ops.unireplknet, [CASE.kh, CASE.kw]
    for name, arguments in (
        ('depthwise_conv2d', (x, weight, bias, CASE.dilation)),
        ('depthwise_conv2d_backward_input', (grad_output, weight, CASE.dilation)),
        ('depthwise_conv2d_backward_weight', (grad_output, x, kernel, CASE.dilation)),
    ):
        torch.testing.assert_close(getattr(ops, name)(*arguments), getattr(naive, name)(*arguments))
    try:
        ops.depthwise_conv2d(x, torch.ones(18, 1, 4, 4, dtype=x.dtype))
    except RuntimeError as error:
        assert 'even' in str(error), error
    else:
        raise AssertionError('an even kernel size is accepted')


def check_function() -> None:
    """Forward and all gradients, every dtype and layout; under autocast; compiled; transformed."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for layout in ('contiguous', 'channels_last', 'sliced'):
            check(convolve, CASE, dtype, 'cpu', layout)

    tensors = Tensors(*(tensor.float() for tensor in inputs_of(CASE)))
    expected = run(dilated_reference, tensors)
    with torch.autocast('cpu', torch.bfloat16):
        output, *gradients = run(
            convolve, tensors._replace(grad_output=tensors.grad_output.bfloat16())
        )
    assert output.dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    for result, truth in zip((output, *gradients), expected, strict=True):
        torch.testing.assert_close(result.float(), truth, rtol=0.05, atol=0.05 * truth.std().item())

    compiled = torch.compile(convolve, backend='aot_eager', fullgraph=True)
    for result, truth in zip(run(compiled, tensors), run(convolve, tensors), strict=True):
        torch.testing.assert_close(result, truth)
    traced = torch.jit.trace(convolve, tensors[:3], check_trace=False)
    torch.testing.assert_close(traced(*tensors[:3]), expected.output)
    gradient = torch.func.grad(lambda x: convolve(x, *tensors[1:3], implementation='auto').sum())
    ones = tensors._replace(grad_output=torch.ones_like(tensors.grad_output))
    torch.testing.assert_close(gradient(tensors.x), run(dilated_reference, ones).grad_x)


def check_choice() -> None:
    """What 'auto' takes is what the choice says, and for a large kernel that is the op."""
    x, weight = torch.randn(8, 64, 28, 28), torch.randn(64, 1, 13, 13, requires_grad=True)
    choices = {}
    for dtype in (torch.float32, torch.float16):
        choices[dtype] = choose_implementation(dtype=dtype, **PROBLEM)
        with RecordedCalls() as calls:
            depthwise_conv2d(x.to(dtype), weight.to(dtype))
        assert calls.implementations() == [choices[dtype]]
    assert set(choices.values()) == {'op'}, unireplknet_ops.explain(x, weight)

    layer = DepthwiseConv2d(64, kernel_size=13, implementation='op')
    output = torch.nn.functional.conv2d(x.double(), layer.weight.double(), padding=6, groups=64)
    assert_close(
        layer(x), output + layer.bias.double()[:, None, None], torch.full_like(output, 10), 'layer'
    )


def main() -> None:
    for device_type in ('cpu', 'cuda') if torch.version.cuda else ('cpu',):
        problem = library.missing(device_type)
        there = (library.directory() / library.FILE_NAMES[device_type]).exists()
        assert problem is None or (device_type == 'cuda' and not there), problem
    check_operators()
    check_function()
    check_choice()
    print(
        f'ok: Python {sys.version.split()[0]}, torch {torch.__version__}, '
        f'{torch.ops.unireplknet.cpu_isa()}: {unireplknet_ops.__file__}, libraries for '
        f'{" and ".join(filter(unireplknet_ops.is_available, library.FILE_NAMES))}'
    )


if __name__ == '__main__':
    main()
