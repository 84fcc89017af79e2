"""Triangle meshes: surfaces of revolution, extruded masks, and points drawn from any mesh by area."""

from typing import NamedTuple

import numpy as np


class Mesh(NamedTuple):
    """`vertices` (n, 3) float64; `triangles` (m, 3), numbers of vertices."""

    vertices: np.ndarray
    triangles: np.ndarray


def sample_surface(mesh: Mesh, count: int, rng: np.random.Generator) -> np.ndarray:
    """Points (count, 3) float64, evenly distributed over the area of a mesh.

    Raises:
        ValueError: the mesh has no area.
    """
    corners = mesh.vertices[mesh.triangles]  # (m, 3 corners, 3)
    sides = corners[:, 1:] - corners[:, :1]
    areas = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1)
    total = areas.sum()
    if not total > 0:
        raise ValueError('the mesh has no area')
    chosen = np.searchsorted(np.cumsum(areas) / total, rng.random(count), side='right')
    chosen = np.minimum(chosen, len(areas) - 1)
    # Points of the parallelogram beyond the diagonal are turned back into the triangle.
    shares = rng.random((count, 2))
    beyond = shares.sum(1) > 1
    shares[beyond] = 1 - shares[beyond]
    return corners[chosen, 0] + (shares[..., None] * sides[chosen]).sum(1)


def revolve(profile: np.ndarray, segments: int) -> Mesh:
    """The surface that a line sweeps around the z axis; with few segments that of a prism or pyramid.

    Args:
        profile: (k, 2), distance from the axis and height of the line's points.
        segments: corners of the polygon that takes the place of the circle.
    """
    angles = 2 * np.pi * (np.arange(segments) + 0.5) / segments
    radius, height = np.asarray(profile, float).T
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    vertices = np.empty((len(radius), segments, 3))
    vertices[..., :2] = radius[:, None, None] * ring
    vertices[..., 2] = height[:, None]
    lower, here = np.mgrid[: len(radius) - 1, :segments]
    after = (here + 1) % segments
    a, b = lower * segments + here, lower * segments + after
    c, d = a + segments, b + segments
    triangles = np.concatenate([np.stack([a, b, d], -1), np.stack([a, d, c], -1)])
    return Mesh(vertices.reshape(-1, 3), triangles.reshape(-1, 3))


def extrude(mask: np.ndarray, depth: float) -> Mesh:
    """A mask as a solid plate that stands upright: columns along x, rows down along z, thickness along y.

    Args:
        mask: (h, w) bool; a pixel is a unit square.
        depth: of the plate, in pixels.
    """
    mask = np.pad(mask, 1)
    quads = []
    rows, columns = np.nonzero(mask)
    for y in (0.0, depth):  # the two faces
        quads.append(_quads(rows, columns, ((0, 0), (0, 1), (1, 1), (1, 0)), (y, y, y, y)))
    edges = ((-1, 0, (0, 0), (0, 1)), (1, 0, (1, 0), (1, 1)))
    edges += ((0, -1, (0, 0), (1, 0)), (0, 1, (0, 1), (1, 1)))
    for down, right, start, end in edges:  # where the neighbour is empty, there is a wall
        rows, columns = np.nonzero(mask & ~np.roll(mask, (-down, -right), (0, 1)))
        quads.append(_quads(rows, columns, (start, end, end, start), (0, 0, depth, depth)))
    vertices = np.concatenate(quads).reshape(-1, 3)
    corners = np.arange(len(vertices)).reshape(-1, 4)
    return Mesh(vertices, np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]]))


def _quads(rows: np.ndarray, columns: np.ndarray, corners: tuple, depths: tuple) -> np.ndarray:
    """(n, 4, 3) corners of squares at (n,) pixels; `corners` are (down, right) of the pixel's own."""
    quads = np.empty((len(rows), 4, 3))
    for i, ((down, right), depth) in enumerate(zip(corners, depths, strict=True)):
        quads[:, i] = np.stack([columns + right, np.full(len(rows), depth), -(rows + down)], axis=1)
    return quads
