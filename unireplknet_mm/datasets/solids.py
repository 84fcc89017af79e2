"""Drawing point clouds: handwritten digits as upright plates, and solids of random proportions.

The digits are the scans of `drawing.py`, of which those of the validation split never occur in training.
z is up; every cloud has its middle at 0 and a longest extent of 1, but for noise.
"""

from dataclasses import dataclass

import numpy as np

from unireplknet_mm.datasets.drawing import DIGIT_NAMES, enlarge, load_scans
from unireplknet_mm.datasets.surfaces import Mesh, extrude, revolve, sample_surface

SCAN_PIXELS = 40  # at which a scan is enlarged before it becomes a plate
DEPTH = (0.15, 0.35)  # of a plate, over its height
STRETCH = (0.65, 1.5)  # of each axis of a solid
NOISE = 0.01  # standard deviation

ROUND = 48  # segments of a circle
_half = np.linspace(-np.pi / 2, np.pi / 2, ROUND // 2)
_whole = np.linspace(0, 2 * np.pi, ROUND)
_quarter = np.linspace(-np.pi / 2, 0, ROUND // 4)
_column = [(0, -1), (1, -1), (1, 1), (0, 1)]
# By name: the profile that is revolved, and in how many segments.
SOLIDS = {
    'box': (_column, 4),
    'cylinder': (_column, ROUND),
    'prism': (_column, 3),
    'pyramid': ([(0, -1), (1, -1), (0, 1)], 4),
    'cone': ([(0, -1), (1, -1), (0, 1)], ROUND),
    'ellipsoid': (np.stack([np.cos(_half), np.sin(_half)], 1), ROUND),
    'bowl': (np.stack([np.cos(_quarter), np.sin(_quarter)], 1), ROUND),
    'torus': (np.stack([1 + 0.35 * np.cos(_whole), 0.35 * np.sin(_whole)], 1), ROUND),
}
CLOUD_NAMES = (*DIGIT_NAMES, *SOLIDS)


@dataclass(frozen=True)
class DrawnCloud:
    """`points` (count, 3) float32; `scan` is the number of the digit's scan, None for a solid."""

    points: np.ndarray
    scan: int | None


def draw_cloud(rng: np.random.Generator, split: str, name: str, count: int) -> DrawnCloud:
    """Draw the points of an object's surface.

    Args:
        rng: the only source of randomness.
        split: 'train' or 'val'; decides which scans may occur.
        name: of `CLOUD_NAMES`.
        count: of points.
    """
    if name in SOLIDS:
        mesh, scan = revolve(*SOLIDS[name]), None
        stretch = np.exp(rng.uniform(*np.log(STRETCH), 3))
        if name == 'torus':
            stretch[1] = stretch[0]  # or its ring would look like that of a zero
    else:
        mesh, scan = _draw_plate(rng, split, DIGIT_NAMES.index(name))
        stretch = 1
    points = sample_surface(Mesh(mesh.vertices * stretch, mesh.triangles), count, rng)
    lowest, highest = points.min(0), points.max(0)
    points = (points - (lowest + highest) / 2) / (highest - lowest).max()
    points += rng.normal(0, NOISE, points.shape)
    return DrawnCloud(points.astype(np.float32), scan)


def _draw_plate(rng: np.random.Generator, split: str, digit: int) -> tuple[Mesh, int]:
    candidates = load_scans(split)[digit]
    scan, ink = candidates[rng.integers(len(candidates))]
    mask = enlarge(rng, ink, SCAN_PIXELS) >= 0.5
    return extrude(mask, len(mask) * rng.uniform(*DEPTH)), scan
