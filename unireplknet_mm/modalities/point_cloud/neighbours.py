"""Nearest neighbours and farthest-point sampling in plain tensor operations, on any device.

Libraries for both are compiled for one torch or one platform each; what these cost instead is measured by
`scripts/benchmark_points.py`, with the figures in `docs/point_cloud.md`.
"""

import torch
from torch import Tensor

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models.layers import leaves_process

MOST_DISTANCES = 2**24  # computed at a time, 64 MiB in float32


@torch.no_grad()
def nearest_neighbours(points: Tensor, count: int) -> Tensor:
    """The nearest points of each point, itself included.

    Distances are sums of squared differences, not the expanded form of a matrix product: they are the same
    bit by bit whatever the order of the points, and precise for near ones.

    Args:
        points: (B, P, 3).
        count: k; of points at the same distance those are taken that come first by their coordinates, or by
            a rule of `topk` that sees the same order, so that the order of the points does not matter. Not so
            in a file that leaves this process.

    Returns:
        (B, P, k) int64, in no order.

    Raises:
        ArgumentError: there are fewer than k points.
    """
    batch, total, _ = points.shape
    if not 1 <= count <= total:
        raise ArgumentError(f'{count} neighbours are asked for in clouds of {total} points')
    points = points.float()
    # Formats of files lack a stable sort, so in them ties fall by the order of the points.
    order = None if leaves_process() else _by_coordinates(points)
    others = points if order is None else points.gather(1, order[..., None].expand_as(points))
    # A graph for other programs has no loop whose length depends on the batch.
    rows = total if leaves_process() else max(1, MOST_DISTANCES // max(1, batch * total))
    found = []
    for part in points.split(rows, dim=1):
        distances = (part[:, :, None, 0] - others[:, None, :, 0]).square_()
        for axis in (1, 2):
            distances += (part[:, :, None, axis] - others[:, None, :, axis]).square_()
        found.append(distances.topk(count, dim=2, largest=False, sorted=False).indices)
    found = torch.cat(found, dim=1)
    if order is None:
        return found
    return order[:, None].expand(-1, total, -1).gather(2, found)


def _by_coordinates(points: Tensor) -> Tensor:
    """(B, P): the numbers of points (B, P, 3), sorted by x, of equal x by y, of equal y by z."""
    order = points[..., 2].argsort(dim=1, stable=True)
    for axis in (1, 0):
        order = order.gather(1, points[..., axis].gather(1, order).argsort(dim=1, stable=True))
    return order


@torch.no_grad()
def farthest_points(points: Tensor, count: int, start: Tensor | int = 0) -> Tensor:
    """Farthest-point sampling: from a first point on, always the one farthest from all that were taken.

    Args:
        points: (B, P, 3).
        count: of the points that are taken, at most P.
        start: number of the first point, or (B,) of them.

    Returns:
        (B, count) int64, in the order in which they are taken: its first n are the sample of n points.

    Raises:
        ArgumentError: there are fewer points than that.
    """
    batch, total, _ = points.shape
    if not 1 <= count <= total:
        raise ArgumentError(f'{count} points are to be taken of clouds of {total}')
    axes = points.float().permute(2, 0, 1).contiguous()  # [3, B, P]: long runs for the inner loop
    distances = axes.new_full((batch, total), torch.inf)
    taken = torch.empty(count, batch, 1, dtype=torch.int64, device=points.device)
    taken[0] = torch.as_tensor(start, device=points.device).reshape(-1, 1)
    difference, squared = torch.empty_like(distances), torch.empty_like(distances)
    for i in range(count - 1):
        for axis, values in enumerate(axes):
            torch.sub(values, values.gather(1, taken[i]), out=difference)
            if axis == 0:
                torch.mul(difference, difference, out=squared)
            else:
                squared.addcmul_(difference, difference)
        torch.minimum(distances, squared, out=distances)
        torch.argmax(distances, dim=1, keepdim=True, out=taken[i + 1])
    return taken[..., 0].T.contiguous()
