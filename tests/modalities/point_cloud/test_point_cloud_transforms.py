"""Between the file and the network: sampling, turning, scaling, noise, voting."""

import numpy as np
import pytest
import torch
from mmengine.registry import TRANSFORMS

import unireplknet_mm.modalities.point_cloud  # noqa: F401
from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.point_cloud import PointCloudError, farthest_points
from unireplknet_mm.modalities.point_cloud.transforms import turning

POINTS = (np.random.default_rng(0).normal(size=(200, 3)) * [1, 2, 3] + 5).astype(np.float32)


@pytest.fixture(autouse=True)
def seed():
    np.random.seed(0)


def apply(name: str, points=POINTS, **settings):
    transform = TRANSFORMS.build(dict(type=name, **settings))
    return transform(dict(points=points, sample_idx=3))['points']


def are_of(points, whole) -> bool:
    known = {tuple(point) for point in whole.tolist()}
    return all(tuple(point) in known for point in points.tolist())


def test_farthest_points_are_sampled():
    expected = POINTS[farthest_points(torch.from_numpy(POINTS)[None], 20)[0].numpy()]
    assert np.array_equal(apply('SamplePoints', count=20), expected)
    assert np.array_equal(apply('SamplePoints', count=200), POINTS)
    assert np.array_equal(apply('SamplePoints', count=20, method='first'), POINTS[:20])


@pytest.mark.parametrize('method', ['farthest', 'first'])
def test_of_candidates_some_are_drawn(method):
    candidates = apply('SamplePoints', count=40, method=method)
    drawn = apply('SamplePoints', count=30, method=method, candidates=40)
    other = apply('SamplePoints', count=30, method=method, candidates=40)
    assert len(np.unique(drawn, axis=0)) == 30 and are_of(drawn, candidates)
    assert not np.array_equal(drawn, other)


def test_random_points():
    drawn = apply('SamplePoints', count=50, method='random')
    assert len(np.unique(drawn, axis=0)) == 50 and are_of(drawn, POINTS)
    assert not np.array_equal(drawn, apply('SamplePoints', count=50, method='random'))


@pytest.mark.parametrize('method', ['farthest', 'random', 'first'])
def test_small_clouds_are_repeated(method):
    drawn = apply('SamplePoints', POINTS[:30], count=75, method=method)
    kinds, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(kinds) == 30 and set(counts) == {2, 3}


def test_unit_sphere():
    points = apply('UnitSphere')
    assert np.abs(points.mean(0)).max() < 1e-5
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1, abs=1e-6)


def test_scale_and_shift_are_within_their_ranges():
    factors = np.array([apply('RandomScale')[0] / POINTS[0] for _ in range(300)])
    assert 2 / 3 <= factors.min() < 0.7 and 1.45 < factors.max() <= 1.5
    assert np.ptp(factors, axis=1).max() > 0.5  # each axis its own
    shifts = np.array([apply('RandomShift')[0] - POINTS[0] for _ in range(300)])
    assert -0.2 - 1e-5 <= shifts.min() < -0.18 and 0.18 < shifts.max() <= 0.2 + 1e-5


def test_a_turn_leaves_heights_and_a_tilt_turns_around_y():
    turned = apply('RandomTurn')
    assert np.allclose(turned[:, 2], POINTS[:, 2], atol=1e-5)
    assert np.allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(POINTS, axis=1), rtol=1e-5)
    assert not np.allclose(turned, POINTS)
    tilted = apply('RandomTurn', turn=(0, 0), tilt=(30, 30))
    assert np.allclose(tilted[:, 1], POINTS[:, 1], atol=1e-5)
    up = turning(0, 90) @ np.array([0, 0, 1])
    assert np.allclose(up, [1, 0, 0], atol=1e-6)
    assert np.allclose(turning(90, 0) @ np.array([1, 0, 0]), [0, 1, 0], atol=1e-6)
    # The turn comes first: around the cloud's own vertical.
    assert np.allclose(turning(90, 90) @ np.array([0, 0, 1]), [1, 0, 0], atol=1e-6)


def test_rotations_are_even_in_space():
    axis = np.array([[0, 0, 1]], np.float32)
    ends = np.concatenate([apply('RandomRotation', axis) for _ in range(2000)])
    assert np.allclose(np.linalg.norm(ends, axis=1), 1, atol=1e-5)
    assert np.abs(ends.mean(0)).max() < 0.05
    assert np.allclose((ends[:, :, None] * ends[:, None]).mean(0), np.eye(3) / 3, atol=0.03)
    frame = apply('RandomRotation', np.eye(3, dtype=np.float32))
    assert np.allclose(frame @ frame.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(frame) == pytest.approx(1, abs=1e-5)  # no mirror image


def test_a_rotation_by_index_is_always_the_same():
    first = apply('RandomRotation', by_index=True)
    assert np.array_equal(apply('RandomRotation', by_index=True), first)
    other = TRANSFORMS.build(dict(type='RandomRotation', by_index=True))
    assert not np.allclose(other(dict(points=POINTS, sample_idx=4))['points'], first)


def test_jitter_is_clipped():
    noise = apply('RandomJitter', deviation=0.03, most=0.05) - POINTS
    assert 0.045 < np.abs(noise).max() <= 0.05 + 1e-5
    assert noise.std() == pytest.approx(0.026, abs=0.003)


def test_dropped_points_are_replaced():
    counts = []
    for _ in range(100):
        points = apply('RandomPointDropout', most=0.5)
        assert points.shape == POINTS.shape and are_of(points, POINTS)
        counts.append(len(np.unique(points, axis=0)))
    assert min(counts) < 130 and max(counts) > 190 and min(counts) > 80
    assert POINTS[0].tolist() != POINTS[1].tolist()


def test_views_are_turns_of_the_cloud():
    views = apply('TurnedViews')
    assert views.shape == (8, 200, 3)
    for number, view in enumerate(views):
        expected = POINTS @ turning(18 + 42.75 * number, -63).T
        assert np.allclose(view, expected, atol=1e-5)


def test_packing():
    transform = TRANSFORMS.build(dict(type='PackPoints'))
    packed = transform(dict(points=POINTS.astype(float), gt_label=2, cloud_path='a', num_points=9))
    assert packed['inputs'].dtype == torch.float32 and packed['inputs'].shape == (200, 3)
    sample = packed['data_samples']
    assert (sample.gt_label.item(), sample.cloud_path, sample.num_points) == (2, 'a', 9)


def test_loading_copies_and_checks_points_of_the_data_set():
    load = TRANSFORMS.build(dict(type='LoadPointCloud'))
    loaded = load(dict(points=POINTS, cloud_path='set[3]'))
    np.testing.assert_allclose(loaded['points'], POINTS - POINTS.mean(0), atol=1e-6)
    assert not np.shares_memory(loaded['points'], POINTS)
    far = POINTS.astype(np.float64) + 5.4e6  # where single precision would have steps of 0.5
    np.testing.assert_allclose(load(dict(points=far))['points'], loaded['points'], atol=1e-6)
    assert loaded['num_points'] == 200
    broken = POINTS.copy()
    broken[3, 1] = np.nan
    with pytest.raises(PointCloudError, match=r'set\[3\]: 1 of 200 points are not finite'):
        load(dict(points=broken, cloud_path='set[3]'))


@pytest.mark.parametrize('random', [False, True])
def test_meshes_are_sampled_anew_in_training_alone(tmp_path, random):
    (tmp_path / 'a.off').write_text('OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n')
    load = TRANSFORMS.build(dict(type='LoadPointCloud', mesh_points=20, random=random))
    first, second = (load(dict(cloud_path=str(tmp_path / 'a.off')))['points'] for _ in range(2))
    assert first.shape == (20, 3)
    assert np.array_equal(first, second) is not random


@pytest.mark.parametrize(
    'settings',
    [
        dict(type='SamplePoints', count=0),
        dict(type='SamplePoints', count=5, method='nearest'),
        dict(type='SamplePoints', count=5, candidates=4),
        dict(type='SamplePoints', count=5, candidates=9, method='random'),
        dict(type='LoadPointCloud', mesh_points=0),
        dict(type='RandomScale', low=0),
        dict(type='RandomScale', low=2, high=1),
        dict(type='RandomTurn', turn=(3, 1)),
        dict(type='RandomJitter', deviation=-1),
        dict(type='RandomPointDropout', most=1),
        dict(type='TurnedViews', turns=()),
    ],
)
def test_values_out_of_range(settings):
    with pytest.raises(ArgumentError):
        TRANSFORMS.build(settings)
