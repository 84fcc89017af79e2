"""Drawn clouds: the surfaces they lie on, their sources, what tells nothing."""

import numpy as np
import pytest

from unireplknet_mm.datasets.drawing import DIGIT_NAMES, FIRST_VAL_SCAN
from unireplknet_mm.datasets.solids import CLOUD_NAMES, NOISE, SOLIDS, draw_cloud
from unireplknet_mm.datasets.surfaces import Mesh, extrude, revolve, sample_surface


def area(mesh: Mesh) -> float:
    a, b, c = mesh.vertices[mesh.triangles].transpose(1, 0, 2)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def is_closed(mesh: Mesh) -> bool:
    """Whether every edge of positive length is between an even number of triangles."""
    corners = mesh.vertices[mesh.triangles].round(6) + 0.0
    edges = {}
    for triangle in corners:
        for i in range(3):
            edge = tuple(sorted([tuple(triangle[i]), tuple(triangle[(i + 1) % 3])]))
            if edge[0] != edge[1]:
                edges[edge] = edges.get(edge, 0) + 1
    flat = [count for edge, count in edges.items() if count % 2]
    return not flat


def test_areas_of_solids():
    side = np.sqrt(2)  # of the square in the unit circle
    assert area(revolve(*SOLIDS['box'])) == pytest.approx(2 * side**2 + 4 * side * 2)
    assert area(revolve(*SOLIDS['cylinder'])) == pytest.approx(6 * np.pi, rel=0.01)
    assert area(revolve(*SOLIDS['ellipsoid'])) == pytest.approx(4 * np.pi, rel=0.01)
    assert area(revolve(*SOLIDS['bowl'])) == pytest.approx(2 * np.pi, rel=0.02)
    assert area(revolve(*SOLIDS['torus'])) == pytest.approx(4 * np.pi**2 * 0.35, rel=0.01)
    slant = np.sqrt(5)
    assert area(revolve(*SOLIDS['cone'])) == pytest.approx(np.pi * (1 + slant), rel=0.01)


@pytest.mark.parametrize('name', [name for name in SOLIDS if name != 'bowl'])
def test_solids_are_closed(name):
    assert is_closed(revolve(*SOLIDS[name]))


def test_an_extruded_mask_is_a_closed_plate():
    mask = np.zeros((4, 5), bool)
    mask[1, 1:4] = True
    mask[2, 2] = True
    mesh = extrude(mask, 2.0)
    assert area(mesh) == pytest.approx(2 * 4 + 10 * 2)  # two faces of 4 pixels, a rim of 10 edges
    assert is_closed(mesh)
    points = sample_surface(mesh, 500, np.random.default_rng(0))
    assert points[:, 1].min() == 0 and points[:, 1].max() == 2
    # Rows run down: the single pixel hangs below the three.
    below = points[points[:, 2] < -3]
    assert len(below) and below[:, 0].min() >= 3 - 1e-9 and below[:, 0].max() <= 4 + 1e-9


def test_a_mesh_without_area_is_refused():
    with pytest.raises(ValueError, match='no area'):
        sample_surface(Mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), 5, np.random.default_rng(0))


@pytest.mark.parametrize('name', CLOUD_NAMES)
def test_clouds_have_one_place_and_size(name):
    for seed in range(3):
        drawn = draw_cloud(np.random.default_rng(seed), 'train', name, 600)
        assert drawn.points.dtype == np.float32 and drawn.points.shape == (600, 3)
        lowest, highest = drawn.points.min(0), drawn.points.max(0)
        assert (highest - lowest).max() == pytest.approx(1, abs=8 * NOISE)
        assert np.abs(lowest + highest).max() < 8 * NOISE
        again = draw_cloud(np.random.default_rng(seed), 'train', name, 600)
        assert np.array_equal(again.points, drawn.points)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_digits_are_scans_of_their_split(split):
    for name in DIGIT_NAMES:
        scan = draw_cloud(np.random.default_rng(0), split, name, 50).scan
        assert (scan >= FIRST_VAL_SCAN) is (split == 'val')


def test_digits_are_plates():
    """Thin along y, as a person reads them along x and z."""
    for name in DIGIT_NAMES:
        extent = np.ptp(draw_cloud(np.random.default_rng(1), 'val', name, 800).points, axis=0)
        assert extent[1] < 0.6 * extent[2]
