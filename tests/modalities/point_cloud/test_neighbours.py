"""Neighbours and farthest points against their definitions."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.point_cloud import farthest_points, nearest_neighbours, neighbours


def cloud(batch: int, count: int) -> torch.Tensor:
    return torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('most', [2**24, 1000])
def test_neighbours_are_those_of_a_tree(monkeypatch, most):
    """In one go, and a few rows at a time."""
    monkeypatch.setattr(neighbours, 'MOST_DISTANCES', most)
    points = cloud(3, 200)
    found = nearest_neighbours(points, 7).sort(2).values
    for one, numbers in zip(points.numpy(), found.numpy(), strict=True):
        _, expected = cKDTree(one).query(one, 7)
        assert np.array_equal(np.sort(expected, 1), numbers)
    assert (nearest_neighbours(points, 1)[..., 0] == torch.arange(200)).all()


def test_neighbours_of_shuffled_points_are_the_same_points():
    points = (
        cloud(1, 500) * 1e3 + 1e4
    )  # where the difference of squares would lose what tells them apart
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    before = nearest_neighbours(points, 5)[0]
    after = nearest_neighbours(points[:, order], 5)[0]
    assert torch.equal(order[after].sort(1).values, before[order].sort(1).values)


def farthest_by_definition(points: np.ndarray, count: int, start: int) -> list[int]:
    taken = [start]
    while len(taken) < count:
        distances = ((points[:, None] - points[taken]) ** 2).sum(2).min(1)
        taken.append(int(distances.argmax()))
    return taken


def test_farthest_points_are_their_definition():
    points = cloud(2, 60)
    found = farthest_points(points, 20, torch.tensor([0, 7]))
    assert found.shape == (2, 20)
    for one, numbers, start in zip(points.double().numpy(), found.tolist(), (0, 7), strict=True):
        assert numbers == farthest_by_definition(one, 20, start)
    assert torch.equal(farthest_points(points, 8, torch.tensor([0, 7])), found[:, :8])
    assert sorted(farthest_points(points, 60)[0].tolist()) == list(range(60))


@pytest.mark.parametrize('function', [farthest_points, nearest_neighbours])
@pytest.mark.parametrize('count', [0, 61])
def test_more_points_than_there_are(function, count):
    with pytest.raises(ArgumentError, match=rf'{count} .*60'):
        function(cloud(1, 60), count)
