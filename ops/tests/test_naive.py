"""The loops over taps against `F.conv2d` and its gradients, and the operators against the loops."""

import pytest
import torch
from op_cases import CASES, Case, assert_close, expected_of, inputs_of, reason_to_skip

from unireplknet_ops.depthwise import naive


@pytest.mark.parametrize('case', CASES, ids=str)
def test_loops_over_taps_are_the_convolution(case):
    x, weight, bias, grad_output = inputs_of(case)
    expected, magnitude = expected_of(case)
    results = dict(
        output=naive.depthwise_conv2d(x, weight, bias, case.dilation),
        grad_x=naive.depthwise_conv2d_backward_input(grad_output, weight, case.dilation),
        grad_weight=naive.depthwise_conv2d_backward_weight(
            grad_output, x, weight.shape[2:], case.dilation
        ),
    )
    for name, result in results.items():
        assert_close(result, getattr(expected, name), getattr(magnitude, name), name)


@pytest.mark.skipif(reason_to_skip('cpu') is not None, reason='no compiled op')
def test_operators_take_the_same_arguments():
    case = Case(2, 5, 9, 11, 5, 3, 2)
    x, weight, bias, grad_output = inputs_of(case)
    arguments = dict(
        depthwise_conv2d=(x, weight, bias, 2),
        depthwise_conv2d_backward_input=(grad_output, weight, 2),
        depthwise_conv2d_backward_weight=(grad_output, x, (5, 3), 2),
    )
    for name, values in arguments.items():
        operator = getattr(torch.ops.unireplknet, name)
        torch.testing.assert_close(operator(*values), getattr(naive, name)(*values))
