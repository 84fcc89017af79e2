"""Eq. 5: frames laid out as one image, and back."""

import math

import pytest
import torch

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.video import FrameGrid, grid_shape
from unireplknet_mm.modalities.video.frame_grid import LAYOUTS

COUNTS = (1, 2, 3, 4, 6, 8, 9, 12, 15, 16, 24, 32)


def clips(num_frames: int, h: int = 4, w: int = 6, b: int = 2, c: int = 3) -> torch.Tensor:
    count = b * num_frames * c * h * w
    return torch.arange(count, dtype=torch.float32).reshape(b, num_frames, c, h, w)


def test_rows_are_the_largest_divisor_up_to_the_root():
    shapes = {1: (1, 1), 2: (1, 2), 3: (1, 3), 8: (2, 4), 12: (3, 4), 16: (4, 4), 32: (4, 8)}
    assert {n: grid_shape(n) for n in shapes} == shapes
    for n in range(1, 200):
        divisors = [d for d in range(1, n + 1) if n % d == 0 and d * d <= n]
        if len(divisors) > 1 or n <= 3:
            assert grid_shape(n) == (divisors[-1], n // divisors[-1])


def test_primes_above_3_are_refused_or_padded():
    for n in (5, 7, 11, 13, 17, 31):
        with pytest.raises(ArgumentError, match=rf'{n} frames, a prime number.*{n + 1} frames'):
            FrameGrid(n)
        assert math.prod(grid_shape(n, pad=True)) == n + 1
    assert grid_shape(6, pad=True) == grid_shape(6)
    with pytest.raises(ArgumentError, match='at least 1, not 0'):
        FrameGrid(0)
    with pytest.raises(ArgumentError, match="not 'bands'"):
        FrameGrid(16, layout='bands')


def test_frames_stand_row_by_row_as_one_reads():
    x = clips(16)
    image = FrameGrid(16)(x)
    assert image.shape == (2, 3, 16, 24)
    for t in range(16):
        row, column = divmod(t, 4)
        cell = image[:, :, 4 * row : 4 * row + 4, 6 * column : 6 * column + 6]
        assert torch.equal(cell, x[:, t])


def test_the_papers_size():
    """HW / hw = N_F: 16 frames of 224×224 make 896×896."""
    clip = torch.empty(1, 16, 3, 224, 224, device='meta')
    for layout in LAYOUTS:
        assert FrameGrid(16, layout)(clip).shape == (1, 3, 896, 896)


def test_reshape_is_that_of_the_published_code():
    """Of (B, C, N_F, H, W); a frame becomes a band of four of its rows side by side."""
    x = clips(16)
    image = FrameGrid(16, 'reshape')(x)
    assert torch.equal(image, x.transpose(1, 2).contiguous().view(2, 3, 16, 24))
    for t in range(16):
        assert torch.equal(image[:, :, t], x[:, t].flatten(2))


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('num_frames', COUNTS)
def test_inverse_is_exact(layout, num_frames):
    grid, x = FrameGrid(num_frames, layout), clips(num_frames)
    assert torch.equal(grid.inverse(grid(x)), x)
    image = grid(x)
    assert torch.equal(grid(grid.inverse(image)), image)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_padded_places_are_zeros_at_the_end(layout):
    grid, x = FrameGrid(7, layout, pad=True), clips(7) + 1
    image = grid(x)
    assert image.shape == (2, 3, 8, 24)
    assert torch.equal(grid.inverse(image), x)
    assert (image == 0).sum() == 2 * 3 * 4 * 6
    full = FrameGrid(8, layout).inverse(image)
    assert full[:, 7].eq(0).all() and full[:, :7].ne(0).all()


def test_gradients_come_back_to_their_frames():
    x = clips(6).requires_grad_()
    weight = torch.rand(2, 3, 8, 18)
    (FrameGrid(6)(x) * weight).sum().backward()
    assert torch.equal(FrameGrid(6).inverse(weight), x.grad)


def test_another_number_of_frames_is_named():
    with pytest.raises(ArgumentError, match='clips of 16 frames, and gets 8'):
        FrameGrid(16)(clips(8))
    with pytest.raises(ArgumentError, match='9x24 is no grid of 4x4'):
        FrameGrid(16).inverse(torch.zeros(1, 3, 9, 24))


def test_order_changes_the_image():
    """What tells two directions of time apart."""
    x = clips(16)
    assert not torch.equal(FrameGrid(16)(x), FrameGrid(16)(x.flip(1)))
