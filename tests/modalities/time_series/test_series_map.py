"""Eq. 2: from windows to maps."""

import math

import pytest
import torch
from torch.nn import functional as F

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series import SeriesMap
from unireplknet_mm.modalities.time_series.embedding import near_square, resolve_map_size, sinusoids
from unireplknet_mm.modalities.time_series.statistics import InstanceStatistics, moving_average


@pytest.mark.parametrize(
    ('values', 'expected'),
    [
        (48 * 768, (192, 192)),
        (96 * 24, (48, 48)),
        (336 * 24, (84, 96)),
        (2, (1, 2)),
        (1, (1, 1)),
        (7, None),
    ],
)
def test_near_square(values, expected):
    """The first is Corrformer's: 48 steps of 768 numbers."""
    assert near_square(values) == expected


def test_near_square_is_the_most_square():
    for values in range(1, 400):
        pairs = [(h, values // h) for h in range(1, values + 1) if values % h == 0]
        best = max(pair for pair in pairs if pair[0] <= pair[1])
        assert near_square(values) == (best if best[1] <= 2 * best[0] else None), values


def test_no_near_square_map_is_an_error_that_names_channels_that_give_one():
    with pytest.raises(ArgumentError) as error:
        resolve_map_size(97, 24)
    assert 'look_back·channels = 97·24 = 2328 is no near-square map' in str(error.value)
    suggested = [
        int(word.rstrip(',')) for word in str(error.value).split() if word.rstrip(',').isdigit()
    ]
    suggested = [number for number in suggested if number > 2]
    assert suggested and all(near_square(97 * channels) for channels in suggested)
    assert resolve_map_size(97, 24, (97, 24)) == (97, 24)
    with pytest.raises(ArgumentError, match=r'map_size=\(97, 25\)'):
        resolve_map_size(97, 24, (97, 25))


@pytest.mark.parametrize('nodes', [1, 2, 6])
@pytest.mark.parametrize('decomposition', [0, 5])
def test_against_the_equation_step_by_step(nodes, decomposition):
    torch.manual_seed(0)
    batch_size, look_back, variables, channels = 2, 12, 6, 12
    embedding = SeriesMap(look_back, variables, channels, nodes, decomposition=decomposition)
    x, calendar = (
        torch.randn(batch_size, look_back, variables),
        torch.rand(batch_size, look_back, 5),
    )
    maps = embedding(x, calendar)
    assert maps.shape == (batch_size * nodes, 1, 12, 12)
    size = variables // nodes
    position = sinusoids(look_back, channels)
    for b in range(batch_size):
        for n in range(nodes):
            own = x[b, :, n * size : (n + 1) * size]  # [L, D/n]
            if decomposition:
                trend = moving_average(own[None], decomposition)[0]
                own = torch.cat([trend, own - trend], dim=1)
            wrapped = torch.cat([own[-1:], own, own[:1]])
            tokens = torch.stack(
                [
                    torch.einsum('cik,ki->c', embedding.value.weight, wrapped[t : t + 3])
                    for t in range(look_back)
                ]
            )
            tokens = tokens + position + calendar[b] @ embedding.calendar.weight.T
            assert torch.allclose(maps[b * nodes + n, 0], tokens.reshape(12, 12), atol=1e-5)


def test_variables_alone_do_not_see_each_other():
    embedding = SeriesMap(12, 3, 12, nodes=3)
    x = torch.randn(2, 12, 3)
    changed = x.clone()
    changed[..., 1] += 1
    differs = (embedding(x) != embedding(changed)).flatten(1).any(dim=1)
    assert differs.tolist() == [False, True, False] * 2


def test_every_step_and_calendar_reaches_the_map():
    embedding = SeriesMap(12, 2, 12)
    x = torch.randn(1, 12, 2, requires_grad=True)
    calendar = torch.rand(1, 12, 5, requires_grad=True)
    (embedding(x, calendar) * torch.randn(12, 12)).sum().backward()
    assert x.grad.ne(0).all() and calendar.grad.ne(0).all()
    assert all(parameter.grad.ne(0).any() for parameter in embedding.parameters())


@pytest.mark.parametrize('position', ['learned', None])
def test_positions(position):
    embedding = SeriesMap(12, 1, 12, calendar=False, position=position, dropout=0.0)
    same = embedding(torch.ones(1, 12, 1))[0, 0]
    is_constant = torch.allclose(same, same[:1].expand_as(same))
    assert is_constant == (position is None)
    assert ('position' in embedding.state_dict()) == (position == 'learned')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(nodes=4), '6 variables cannot be split into nodes=4'),
        (dict(nodes=0), 'nodes=0'),
        (dict(kernel_size=2), 'kernel_size=2'),
        (dict(kernel_size=27), 'kernel_size=27'),
        (dict(position='rotary'), "not 'rotary'"),
        (dict(decomposition=4), 'not 4'),
        (dict(channels=0), 'channels=0'),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        SeriesMap(**(dict(look_back=12, variables=6, channels=12) | arguments))


def test_moving_average_repeats_the_ends():
    x = torch.tensor([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)
    expected = torch.tensor([4 / 3, 7 / 3, 14 / 3, 20 / 3]).reshape(1, 4, 1)
    assert torch.allclose(moving_average(x, 3), expected)


@pytest.mark.parametrize('kind', ['mean_std', 'mean', 'last', None])
def test_statistics_are_restored(kind):
    x = 3 + 5 * torch.randn(2, 16, 3, dtype=torch.float64)
    normal, level, scale = InstanceStatistics(kind)(x)
    assert torch.allclose(InstanceStatistics.restore(normal, level, scale), x)
    if kind in ('mean_std', 'mean'):
        assert torch.allclose(normal.mean(dim=1), torch.zeros(2, 3, dtype=x.dtype))
    if kind == 'mean_std':
        assert torch.allclose(
            normal.var(dim=1, correction=0), torch.ones(2, 3, dtype=x.dtype), atol=1e-4
        )
    if kind == 'last':
        assert not normal[:, -1].any()


def test_a_constant_window_is_finite_forwards_and_backwards():
    x = torch.full((1, 8, 2), 3.0, requires_grad=True)
    normal, level, scale = InstanceStatistics('mean_std')(x)
    assert not normal.any()
    F.mse_loss(InstanceStatistics.restore(normal, level, scale), torch.zeros(1, 8, 2)).backward()
    assert x.grad.isfinite().all()


def test_sinusoids():
    code = sinusoids(50, 7)
    assert code[0].tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert code[3, 2].item() == pytest.approx(math.sin(3 / 10000 ** (2 / 7)))
    assert code[3, 3].item() == pytest.approx(math.cos(3 / 10000 ** (2 / 7)))
