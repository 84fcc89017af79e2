"""From a cloud's points to what the network gets.

Between the steps `results['points']` holds (n, 3) float32, z up. Random numbers are NumPy's, which are seeded
for every sample.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS
from mmpretrain.datasets import PackInputs

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.point_cloud.files import centre, read_cloud, turn_z_up
from unireplknet_mm.modalities.point_cloud.neighbours import farthest_points


@TRANSFORMS.register_module()
class LoadPointCloud(BaseTransform):
    """Adds `points`: those that the data set gives, or read from the file at `cloud_path`, with z up.

    A cloud is moved so that its mean is 0, in float64, for coordinates such as those of a map; but for
    that they are taken as they are, unless the data set says `y_is_up`.

    Args:
        mesh_points: how many are drawn from the surface of a mesh, evenly over its area.
        random: others every time, for training.

    Raises:
        PointCloudError: the file cannot be read, or there is less than two different points, or one that is
            not finite.
    """

    def __init__(self, mesh_points: int = 8192, random: bool = False):
        _check_positive(mesh_points=mesh_points)
        self.mesh_points = mesh_points
        self.random = random

    def transform(self, results: dict) -> dict:
        if 'points' in results:
            name = results.get('cloud_path', 'a cloud of the data set')
            points = centre(np.asarray(results['points']), name)  # a copy: what follows may write
        else:
            rng = np.random.default_rng(np.random.randint(2**31) if self.random else 0)
            points = read_cloud(Path(results['cloud_path']), self.mesh_points, rng)
            points = turn_z_up(points) if results.get('y_is_up') else points
        return {**results, 'points': points, 'num_points': len(points)}


@TRANSFORMS.register_module()
class SamplePoints(BaseTransform):
    """Leaves `count` points; a cloud of fewer has some of them several times.

    Args:
        count: of points.
        method: 'farthest', by farthest-point sampling; 'random'; 'first', for clouds in the order of
            farthest-point sampling, as that of ModelNet-40's `.dat` files.
        candidates: of 'farthest' and 'first', for training: as many are sampled, and `count` of them taken
            by chance, 4,800 for 4,096 in the published code. Default: no chance is involved.
    """

    METHODS = ('farthest', 'random', 'first')

    def __init__(self, count: int, method: str = 'farthest', candidates: int | None = None):
        _check_positive(count=count)
        if method not in self.METHODS:
            raise ArgumentError(f'method must be {", ".join(self.METHODS)}, got {method!r}')
        if candidates is not None and (candidates < count or method == 'random'):
            raise ArgumentError(f'candidates={candidates} does not fit {count} {method} points')
        self.count = count
        self.method = method
        self.candidates = candidates

    def transform(self, results: dict) -> dict:
        points = results['points']
        total = len(points)
        if self.method == 'random':
            repeats = -(-self.count // total)
            shuffled = [np.random.permutation(total) for _ in range(repeats)]
            return {**results, 'points': points[np.concatenate(shuffled)[: self.count]]}
        wanted = min(self.candidates or self.count, total)
        if self.method == 'farthest' and wanted < total:
            chosen = farthest_points(torch.from_numpy(points)[None], wanted)[0].numpy()
            points = points[chosen]
        points = points[:wanted]
        if self.candidates is not None:
            points = points[np.random.permutation(wanted)]
        return {**results, 'points': points[np.arange(self.count) % wanted]}


@TRANSFORMS.register_module()
class UnitSphere(BaseTransform):
    """Moves the mean of the points to 0 and scales the farthest of them to a distance of 1."""

    def transform(self, results: dict) -> dict:
        points = results['points'] - results['points'].mean(0)
        farthest = np.linalg.norm(points, axis=1).max()
        return {**results, 'points': points / max(farthest, np.finfo(np.float32).tiny)}


@TRANSFORMS.register_module()
class RandomScale(BaseTransform):
    """Scales each axis by a factor of its own.

    Args:
        low, high: of the factor; 2/3 and 3/2 in the paper's recipe.
    """

    def __init__(self, low: float = 2 / 3, high: float = 3 / 2):
        if not 0 < low <= high:
            raise ArgumentError(f'factors must be positive, the lower first, got {low} and {high}')
        self.low = low
        self.high = high

    def transform(self, results: dict) -> dict:
        factors = np.random.uniform(self.low, self.high, 3).astype(np.float32)
        return {**results, 'points': results['points'] * factors}


@TRANSFORMS.register_module()
class RandomShift(BaseTransform):
    """Moves a cloud by up to `largest` along each axis; 0.2 in the paper's recipe.

    The projection places a cloud by its bounds, so there a shift changes the features alone.
    """

    def __init__(self, largest: float = 0.2):
        self.largest = largest

    def transform(self, results: dict) -> dict:
        shift = np.random.uniform(-self.largest, self.largest, 3).astype(np.float32)
        return {**results, 'points': results['points'] + shift}


def turning(turn: float, tilt: float) -> np.ndarray:
    """(3, 3) float32: a turn around z, then one around y, in degrees; for columns."""
    a, b = np.deg2rad([turn, tilt])
    around_z = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    around_y = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    return (np.array(around_y) @ np.array(around_z)).astype(np.float32)


@TRANSFORMS.register_module()
class RandomTurn(BaseTransform):
    """Turns a cloud around z, which is up, and then tilts it around y, as the published code does.

    Args:
        turn, tilt: ranges in degrees.
    """

    def __init__(self, turn: Sequence[float] = (-180.0, 180.0), tilt: Sequence[float] = (0.0, 0.0)):
        for name, value in dict(turn=turn, tilt=tilt).items():
            if len(value) != 2 or value[0] > value[1]:
                raise ArgumentError(f'{name} must be two angles, the smaller first, got {value}')
        self.turn = tuple(turn)
        self.tilt = tuple(tilt)

    def transform(self, results: dict) -> dict:
        matrix = turning(np.random.uniform(*self.turn), np.random.uniform(*self.tilt))
        return {**results, 'points': results['points'] @ matrix.T}


@TRANSFORMS.register_module()
class RandomRotation(BaseTransform):
    """Rotates a cloud in space, all rotations being equally likely (SO(3)).

    Args:
        by_index: the rotation depends on the sample's number in its data set alone, for testing: every
            test of every model then sees the same.
    """

    def __init__(self, by_index: bool = False):
        self.by_index = by_index

    def transform(self, results: dict) -> dict:
        if self.by_index:
            four = np.random.default_rng(results['sample_idx']).normal(size=4)
        else:
            four = np.random.normal(size=4)
        w, x, y, z = four / np.linalg.norm(four)  # a quaternion
        matrix = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ],
            dtype=np.float32,
        )
        return {**results, 'points': results['points'] @ matrix.T}


@TRANSFORMS.register_module()
class RandomJitter(BaseTransform):
    """Moves every point by normal noise, clipped, which PointNet++ has in units of the unit sphere."""

    def __init__(self, deviation: float = 0.01, most: float = 0.05):
        if deviation < 0 or most < 0:
            raise ArgumentError(f'noise must not be negative, got {deviation} and {most}')
        self.deviation = deviation
        self.most = most

    def transform(self, results: dict) -> dict:
        noise = np.random.normal(0, self.deviation, results['points'].shape)
        noise = noise.clip(-self.most, self.most).astype(np.float32)
        return {**results, 'points': results['points'] + noise}


@TRANSFORMS.register_module()
class RandomPointDropout(BaseTransform):
    """Drops points, up to a share of them; a point that stays takes the place of each, so the number stays.

    Args:
        most: of the share, which is drawn evenly from 0 to it; 0.875 in PointNet++.
    """

    def __init__(self, most: float = 0.875):
        if not 0 <= most < 1:
            raise ArgumentError(f'most is a share from 0 to below 1, got {most}')
        self.most = most

    def transform(self, results: dict) -> dict:
        points = results['points'].copy()
        is_dropped = np.random.random(len(points)) < np.random.random() * self.most
        kept = np.flatnonzero(~is_dropped)
        points[is_dropped] = points[kept[0] if len(kept) else 0]
        return {**results, 'points': points}


@TRANSFORMS.register_module()
class TurnedViews(BaseTransform):
    """Turned copies of a cloud, (V, n, 3), whose scores the classifier averages (voting).

    Args:
        turns: degrees around z, one a copy. The published code's are eight, from 18° in steps of 42.75°.
        tilt: degrees around y, -63° in the published code.
    """

    def __init__(
        self, turns: Sequence[float] = tuple(18 + 42.75 * i for i in range(8)), tilt: float = -63.0
    ):
        if not turns:
            raise ArgumentError('turns must name at least one angle')
        self.turns = tuple(turns)
        self.tilt = tilt

    def transform(self, results: dict) -> dict:
        views = [results['points'] @ turning(turn, self.tilt).T for turn in self.turns]
        return {**results, 'points': np.stack(views)}


@TRANSFORMS.register_module()
class PackPoints(PackInputs):
    """Packs `points` as float32 `inputs`, (n, 3), of V copies (V, n, 3); and a DataSample.

    Args:
        meta_keys: what the sample keeps of the results.
    """

    DEFAULT_META_KEYS = ('sample_idx', 'cloud_path', 'num_points')

    def __init__(self, meta_keys: Sequence[str] = DEFAULT_META_KEYS):
        super().__init__(input_key='cloud', meta_keys=tuple(meta_keys))

    def transform(self, results: dict) -> dict:
        points = np.ascontiguousarray(results['points'], np.float32)
        return super().transform({**results, 'cloud': torch.from_numpy(points)})


def _check_positive(**values: Any) -> None:
    for name, value in values.items():
        if value < 1:
            raise ArgumentError(f'{name} must be at least 1, got {value}')
