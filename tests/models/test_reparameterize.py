"""The folding functions against the layers they fold, on randomised statistics, in float64."""

import pytest
import torch
import torch.nn.functional as F
from helpers import randomise, relative_error
from torch import nn

from unireplknet_mm.models import reparameterize as rep


def tensors_of(norm: nn.BatchNorm2d) -> rep.BatchNormTensors:
    return rep.BatchNormTensors(
        norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps
    )


def random_norm(channels: int, seed: int) -> nn.BatchNorm2d:
    return randomise(nn.BatchNorm2d(channels).double(), seed).eval()


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('groups', [1, 2, 6])
def test_fold_batch_norm_equals_convolution_then_norm(bias, groups):
    conv = randomise(nn.Conv2d(6, 6, 3, groups=groups, bias=bias).double())
    norm = random_norm(6, seed=1)
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)
    weight, folded_bias = rep.fold_batch_norm(conv.weight, conv.bias, tensors_of(norm))
    assert relative_error(F.conv2d(x, weight, folded_bias, groups=groups), norm(conv(x))) < 1e-14


@pytest.mark.parametrize('dilation', [1, 2, 3, 5])
@pytest.mark.parametrize('in_channels_per_group', [1, 3])
def test_dilated_to_dense_equals_the_papers_transposed_convolution(dilation, in_channels_per_group):
    """Eq. 6 and Fig. 10, slice by slice."""
    weight = torch.randn(4, in_channels_per_group, 3, 3, dtype=torch.float64)
    identity = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    slices = [
        F.conv_transpose2d(weight[:, i : i + 1], identity, stride=dilation)
        for i in range(in_channels_per_group)
    ]
    assert torch.equal(rep.dilated_to_dense(weight, dilation), torch.cat(slices, dim=1))


@pytest.mark.parametrize(
    ('kernel_size', 'branch_size', 'dilation'), [(13, 3, 3), (9, 5, 2), (5, 3, 2)]
)
def test_embedded_dense_kernel_equals_the_dilated_convolution(kernel_size, branch_size, dilation):
    """Fig. 11: 'same' padding, borders included, also where the kernel is larger than the map."""
    weight = torch.randn(4, 1, branch_size, branch_size, dtype=torch.float64)
    dense = rep.embed_kernel(rep.dilated_to_dense(weight, dilation), kernel_size)
    for size in ((19, 19), (4, 7), (1, 1)):
        x = torch.randn(2, 4, *size, dtype=torch.float64)
        expected = F.conv2d(
            x, weight, padding=(branch_size - 1) * dilation // 2, dilation=dilation, groups=4
        )
        actual = F.conv2d(x, dense, padding=kernel_size // 2, groups=4)
        assert relative_error(actual, expected) < 1e-14


def test_merge_branches_equals_the_sum_of_branches():
    x = torch.randn(2, 5, 17, 14, dtype=torch.float64)
    expected, branches = 0, []
    for seed, (size, dilation) in enumerate(((13, 1), (5, 1), (7, 2), (3, 5))):
        conv = nn.Conv2d(
            5, 5, size, padding=(size - 1) * dilation // 2, dilation=dilation, groups=5, bias=False
        ).double()
        norm = random_norm(5, seed)
        expected = expected + norm(conv(x))
        branches.append(rep.Branch(conv.weight, tensors_of(norm), dilation))
    weight, bias = rep.merge_branches(branches, 13)
    assert weight.shape == (5, 1, 13, 13)
    assert relative_error(F.conv2d(x, weight, bias, padding=6, groups=5), expected) < 1e-14


@pytest.mark.parametrize('bias', [True, False])
def test_fold_input_bias_and_output_scale(bias):
    linear = nn.Linear(6, 4, bias=bias).double()
    constant, scale = torch.randn(1, 1, 1, 6).double(), torch.randn(4).double()
    x = torch.randn(3, 6).double()
    folded = rep.fold_input_bias(linear.weight, linear.bias, constant)
    weight, folded = rep.fold_output_scale(linear.weight, folded, scale)
    expected = linear(x + constant.reshape(-1)) * scale
    assert relative_error(F.linear(x, weight, folded), expected) < 1e-14


def test_embed_kernel_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match='does not embed centred'):
        rep.embed_kernel(torch.zeros(1, 1, 15, 15), 13)
    with pytest.raises(ValueError, match='does not embed centred'):
        rep.embed_kernel(torch.zeros(1, 1, 4, 4), 13)


def test_folding_dtype_keeps_precision():
    assert rep.folding_dtype(torch.float16) == torch.float32
    assert rep.folding_dtype(torch.bfloat16) == torch.float32
    assert rep.folding_dtype(torch.float64) == torch.float64
