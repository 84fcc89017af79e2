"""The effective receptive field on networks for which it is known in closed form."""

import math

import pytest
import torch
from torch import nn

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.measuring.erf import (
    THRESHOLDS,
    check_picture,
    contribution_scores,
    draw,
    markdown,
    measure_field,
    readable,
    smallest_square,
    squares_of,
)


def conv_of_ones(
    kernel_size: int, channels: int = 2, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """A depthwise convolution that adds up its window."""
    conv = nn.Conv2d(
        channels,
        channels,
        kernel_size,
        stride,
        padding=0 if stride > 1 else dilation * (kernel_size // 2),
        dilation=dilation,
        groups=channels,
        bias=False,
    )
    nn.init.ones_(conv.weight)
    return conv


def positive_image(size: int, channels: int = 2) -> torch.Tensor:
    return 1 + torch.rand(1, channels, size, size)


def expected_side(kernel_size: int, threshold: float) -> int:
    """The smallest odd s with s²/K² > t: all K×K scores are equal."""
    return next(s for s in range(1, kernel_size + 1, 2) if s * s > threshold * kernel_size**2)


@pytest.mark.parametrize('is_logarithmic', [True, False])
@pytest.mark.parametrize('size', [65, 64])
@pytest.mark.parametrize('kernel_size', [1, 5, 13, 31])
def test_one_convolution_of_ones_is_a_uniform_square(kernel_size, size, is_logarithmic):
    conv = conv_of_ones(kernel_size)
    field = measure_field('ones', conv, [positive_image(size)])
    reach = kernel_size // 2
    expected = torch.zeros(size, size, dtype=torch.float64)
    expected[
        size // 2 - reach : size // 2 + reach + 1, size // 2 - reach : size // 2 + reach + 1
    ] = 2
    assert torch.equal(field.scores, expected)  # a gradient of 1 for each of two channels
    assert field.map_size == (size, size)
    for threshold, square in zip(THRESHOLDS, squares_of(field, is_logarithmic), strict=True):
        side = expected_side(kernel_size, threshold)
        assert square == (side, side**2 / size**2)


def test_two_convolutions_are_their_convolution():
    """3×3 behind 3×3 is (1 2 3 2 1) in both axes."""
    field = measure_field(
        'two', nn.Sequential(conv_of_ones(3), conv_of_ones(3)), [positive_image(33)]
    )
    row = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    assert torch.equal(field.scores[14:19, 14:19], 2 * torch.outer(row, row))
    assert field.scores.sum() == 2 * 81
    # Shares of the squares of side 1, 3, 5: 9/81, 49/81, 1.
    sides = [square.side for square in squares_of(field, is_logarithmic=False)]
    assert sides == [3, 3, 3, 5]
    # With the logarithm: log10(1 + 2 a b) for a, b of the row.
    values = torch.log10(1 + 2 * torch.outer(row, row))
    share = float(values[1:4, 1:4].sum() / values.sum())
    assert 0.3 < share < 0.5 and values[2, 2] / values.sum() < 0.2
    assert [square.side for square in squares_of(field)] == [3, 3, 5, 5]


def test_dilation_spreads_and_stride_moves_the_field():
    dilated = measure_field('dilated', conv_of_ones(3, dilation=4), [positive_image(33)])
    positions = dilated.scores.nonzero()
    assert {tuple(p) for p in (positions - 16).tolist()} == {
        (y, x) for y in (-4, 0, 4) for x in (-4, 0, 4)
    }
    patches = measure_field('patches', conv_of_ones(4, stride=4), [positive_image(64)])
    assert patches.map_size == (16, 16)
    assert patches.scores.nonzero().unique().tolist() == [32, 33, 34, 35]
    # Around row 32 the 4×4 patch lies to the lower right: all of it is in the square of side 7.
    assert squares_of(patches)[-1] == (7, 49 / 4096)


def test_only_what_raises_positive_values_counts():
    conv = conv_of_ones(3, channels=1)
    conv.weight.data[0, 0, 0] = -1  # a row of negative weights: its pixels count nothing
    scores, _ = contribution_scores(conv, positive_image(9, 1))
    assert scores[3].sum() == 0 and torch.equal(scores[4:6, 3:6], torch.ones(2, 3).double())
    scores, _ = contribution_scores(conv_of_ones(3, channels=1), -positive_image(9, 1))
    assert scores.sum() == 0  # the value of the centre is negative


def test_scores_are_averaged_over_the_images_with_finite_scores():
    class Scaled(nn.Module):
        """A gradient that is the number in the image's corner; infinite for 7."""

        def forward(self, x):
            factor = x[0, 0, 0, 0].detach()
            return x * (factor if factor != 7 else torch.inf)

    images = [torch.full((1, 1, 5, 5), number) for number in (1.0, 7.0, 3.0)]
    done = []
    field = measure_field('scaled', Scaled(), images, done.append)
    assert field.scores[2, 2] == 2 and field.num_images == 2 and done == [1, 2]
    with pytest.raises(ArgumentError, match=r'no image gave finite scores \(1 did not\)'):
        measure_field('scaled', Scaled(), images[1:2])


def test_the_logarithm_depends_on_the_size_of_the_gradients_and_shares_do_not():
    """Why there are two kinds of ratios: a factor of the output changes the published one."""
    distance = (torch.arange(101) - 50.0).double() ** 2
    scores = torch.exp(-(distance[:, None] + distance) / 200)
    logarithmic = [smallest_square(readable(factor * scores), 0.5).side for factor in (1e-6, 1e6)]
    plain = [smallest_square(readable(factor * scores, False), 0.5).side for factor in (1e-6, 1e6)]
    assert plain[0] == plain[1] == logarithmic[0]
    assert logarithmic[1] > 2 * logarithmic[0]
    # A Gaussian of deviation 10: a share t within ±a where erf(a / (10 √2))² > t, at half pixels.
    for threshold in THRESHOLDS:
        side = smallest_square(scores, threshold).side
        shares = [math.erf(reach / (10 * 2**0.5)) ** 2 for reach in (side / 2 - 1, side / 2)]
        assert shares[0] < threshold + 1e-3 and shares[1] > threshold - 1e-3


@pytest.mark.parametrize('shape', [(8, 8), (9, 9), (8, 20)])
def test_a_share_that_only_the_whole_holds(shape):
    scores = torch.zeros(shape)
    scores[0, 0] = scores[-1, -1] = 1
    assert smallest_square(scores, 0.99) == (max(shape), 1.0)


@pytest.mark.parametrize('threshold', [0.2, 0.3, 0.5, 0.99])
def test_squares_are_those_of_the_definition_word_by_word(threshold):
    scores = torch.rand(31, 31, generator=torch.Generator().manual_seed(0)).double() ** 4
    for reach in range(16):
        inside = scores[15 - reach : 16 + reach, 15 - reach : 16 + reach]
        if inside.sum() > threshold * scores.sum():
            break
    side = 2 * reach + 1
    assert smallest_square(scores, threshold) == (side, side**2 / 31**2)


def test_errors_name_the_network():
    with pytest.raises(ArgumentError, match='dark: no pixel counts'):
        measure_field('dark', conv_of_ones(3), [-positive_image(9)])
    with pytest.raises(ArgumentError, match=r'the last map must be \(1, C, H, W\), got \(1, 2\)'):
        measure_field('flat', lambda x: x.mean((2, 3)), [positive_image(9)])


def test_control_c_keeps_the_images_so_far():
    def images():
        yield positive_image(9)
        raise KeyboardInterrupt

    field = measure_field('ones', conv_of_ones(3), images())
    assert field.is_interrupted and field.num_images == 1

    def none():
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        measure_field('ones', conv_of_ones(3), none())


def test_table_and_picture(tmp_path):
    fields = [measure_field(f'K={k}', conv_of_ones(k), [positive_image(65)]) for k in (5, 13)]
    table = markdown(fields)
    row = next(line for line in table.splitlines() if line.startswith('| K=13'))
    ratios = [f'{100 * s * s / 65**2:.1f} ({s})' for s in (7, 9, 11, 13)]
    assert row == f'| K=13 | 65×65 | 65×65 | 1 | {" | ".join(ratios)} |'
    assert 'of log10(score + 1)' in table and 'of scores' in markdown(fields, False)
    path = tmp_path / 'erf.png'
    draw(fields, path)
    assert path.read_bytes().startswith(b'\x89PNG')
    with pytest.raises(ArgumentError, match=r'erf\.xyz: matplotlib writes no such files'):
        check_picture(tmp_path / 'erf.xyz')
    check_picture(path)
