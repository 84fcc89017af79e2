"""Architectures: what `arch` and `branches` may be, the rules of the paper, reading one off weights."""

import pytest
import torch
from helpers import SMALL_ARCH

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.architecture import (
    ARCHITECTURES,
    branch_names,
    check_branches,
    default_branches,
    default_kernel_sizes,
    describe_architecture,
    read_architecture,
    resolve_architecture,
)


def arch(**changes):
    return {**SMALL_ARCH, **changes}


@pytest.mark.parametrize(
    ('depth', 'stage_3'),
    [
        (1, (13,)),
        (6, (13,) * 6),
        (9, (13,) * 9),
        (10, (13, 3) * 5),
        (18, (13, 3) * 9),
        (27, (13, 3, 3) * 9),
    ],
)
def test_nine_large_kernels_at_most_in_stage_3(depth, stage_3):
    assert default_kernel_sizes((2, 1, depth, 3)) == ((3, 3), (13,), stage_3, (13, 13, 13))


def test_an_architecture_is_resolved_to_a_kernel_size_a_block():
    assert resolve_architecture('a') == dict(
        depths=(2, 2, 6, 2),
        channels=(40, 80, 160, 320),
        kernel_sizes=((3, 3), (13, 13), (13,) * 6, (13, 13)),
    )
    own = dict(depths=[1, 1, 3, 1], channels=[8, 16, 24, 32], kernel_sizes=[3, 13, [13, 5, 7], 19])
    assert resolve_architecture(own) == dict(
        depths=(1, 1, 3, 1), channels=(8, 16, 24, 32), kernel_sizes=((3,), (13,), (13, 5, 7), (19,))
    )


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (
            'tiny',
            "unknown arch 'tiny': choose from a, f, p, n, t, s, b, l, xl, h, or pass "
            'dict(depths=..., channels=..., kernel_sizes=...)',
        ),
        (
            dict(depths=(1, 1, 1, 1)),
            "arch must be a name or a dict with depths and channels, got {'depths': (1, 1, 1, 1)}",
        ),
        (3, 'arch must be a name or a dict with depths and channels, got 3'),
        (arch(dims=3, size=1), 'unknown keys in arch: dims, size'),
        (
            arch(depths=(1, 1, 3)),
            'arch depths must be 4 whole numbers of at least 1, got (1, 1, 3)',
        ),
        (arch(depths=3), 'arch depths must be 4 whole numbers of at least 1, got 3'),
        (
            arch(channels=(8, 16, 1, 32)),
            'arch channels must be 4 whole numbers of at least 2, got (8, 16, 1, 32)',
        ),
        (
            arch(depths=(2, 1, 3, 1), kernel_sizes=((3,), 13, 13, 13)),
            'kernel sizes do not match the depths: stage 1 has 2 blocks and 1 kernel sizes (3,)',
        ),
        (
            arch(kernel_sizes=(3, 13, 13)),
            'kernel_sizes must have 4 entries, one a stage, got (3, 13, 13)',
        ),
        (arch(kernel_sizes=7), 'kernel_sizes must have 4 entries, one a stage, got 7'),
        (
            arch(kernel_sizes=(3, 12, 13, 13)),
            'kernel size 12 in stage 2: must be odd and at least 3, or 1 for a block without a depthwise '
            'convolution',
        ),
        (
            arch(kernel_sizes=(-1, 13, 13, 13)),
            'kernel size -1 in stage 1: must be odd and at least 3, or 1 for a block without a depthwise '
            'convolution',
        ),
        (
            arch(kernel_sizes=(3, 13, 13, '13')),
            "kernel_sizes of stage 4 must be a size or a list of sizes, got '13'",
        ),
        (
            arch(kernel_sizes=(3, 13.5, 13, 13)),
            'kernel_sizes of stage 2 must be a size or a list of sizes, got 13.5',
        ),
    ],
)
def test_an_architecture_that_cannot_be_is_named_with_the_way_out(wrong, message):
    with pytest.raises(ArgumentError) as info:
        resolve_architecture(wrong)
    assert str(info.value) == message


@pytest.mark.parametrize('kernel_size', range(5, 33, 2))
def test_default_branches_fit(kernel_size):
    branches = default_branches(kernel_size)
    assert check_branches(kernel_size, branches) == branches
    assert len(branches) >= 2


@pytest.mark.parametrize('kernel_size', [3, 6, 18])
def test_a_kernel_without_default_branches(kernel_size):
    with pytest.raises(ArgumentError) as info:
        default_branches(kernel_size)
    assert str(info.value) == (
        f'a Dilated Reparam Block needs an odd kernel size of at least 5, got {kernel_size}'
    )


@pytest.mark.parametrize(
    ('branches', 'message'),
    [
        (
            [(5, 4)],
            'branch (kernel size 5, dilation 4) does not fit a 13×13 kernel: the size must be odd and '
            '(size-1)·dilation+1 = 17 at most 13',
        ),
        (
            [(5, 1), (4, 1)],
            'branch (kernel size 4, dilation 1) does not fit a 13×13 kernel: the size must be odd and '
            '(size-1)·dilation+1 = 4 at most 13',
        ),
        (3, 'branches of the 13×13 kernel must be (kernel size, dilation) pairs, got 3'),
        ([3, 5], 'branches of the 13×13 kernel must be (kernel size, dilation) pairs, got [3, 5]'),
        (
            [(3, 1, 1)],
            'branches of the 13×13 kernel must be (kernel size, dilation) pairs, got [(3, 1, 1)]',
        ),
        (
            [('a', 1)],
            "branches of the 13×13 kernel must be (kernel size, dilation) pairs, got [('a', 1)]",
        ),
    ],
)
def test_branches_that_do_not_fit_are_named(branches, message):
    with pytest.raises(ArgumentError) as info:
        check_branches(13, branches)
    assert str(info.value) == message


def test_branches_may_repeat_and_have_names_of_their_own():
    branches = check_branches(13, [(3, 1), (5, 1), (3, 1), [3, 1], (3, 2)])
    assert branch_names(branches) == ['k3_1', 'k5_1', 'k3_1_2', 'k3_1_3', 'k3_2']


WITHOUT_DEPTHWISE = dict(SMALL_ARCH, kernel_sizes=((1,), (13,), (13, 1, 3), (1,)))


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('of', ['a', 'n', 't', SMALL_ARCH, WITHOUT_DEPTHWISE], ids=str)
def test_an_architecture_is_read_off_weights_of_both_forms(of, deploy):
    with torch.device('meta'):
        backbone = UniRepLKNet(of, deploy=deploy)
    assert read_architecture(backbone.state_dict()) == backbone.arch_settings


def test_weights_of_something_else_have_no_blocks():
    nothing = read_architecture({'stages.9.0.dwconv.weight': torch.zeros(1), 'fc.weight': None})
    assert nothing == dict(depths=(0,) * 4, channels=(0,) * 4, kernel_sizes=((),) * 4)


def test_architectures_in_words():
    for name in ARCHITECTURES:
        words = describe_architecture(resolve_architecture(name))
        assert words.startswith(f'UniRepLKNet-{name.upper()} (depths ')
    assert describe_architecture(resolve_architecture(SMALL_ARCH)) == (
        'a UniRepLKNet of depths 1 1 3 1, channels 8 16 24 32'
    )
