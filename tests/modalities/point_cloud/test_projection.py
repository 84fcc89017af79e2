"""Clouds on planes: places, scattering, gradients, permutations, quarter turns."""

import pytest
import torch
from helpers import randomise, relative_error
from mmengine.registry import MODELS

import unireplknet_mm.modalities.point_cloud  # noqa: F401
from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.point_cloud.projection import (
    FORMS,
    REDUCTIONS,
    SPLATS,
    ThreeViewProjection,
    place_on_views,
    scatter,
)

SMALL = dict(size=16, num_neighbours=4, point_channels=4, channels=8)
# A quarter turn around an axis: the coordinates that take the places of x, y and z, and their signs.
QUARTERS = {
    'x': ((0, 2, 1), (1, -1, 1)),
    'y': ((2, 1, 0), (1, 1, -1)),
    'z': ((1, 0, 2), (-1, 1, 1)),
}
PLANES = ((0, 1), (0, 2), (1, 2))


def cloud(batch: int = 2, count: int = 60, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    stretch = torch.tensor([1.0, 0.6, 0.8])
    return torch.randn(batch, count, 3, generator=generator) * stretch


def bridge(**settings) -> ThreeViewProjection:
    with torch.no_grad():
        return randomise(MODELS.build(dict(type='ThreeViewProjection', **{**SMALL, **settings})))


def scatter_by_loops(features, places, size, splat, scores):
    """The definition, pixel by pixel."""
    batch, views, count, _ = places.shape
    maps = features.new_zeros(batch, views, features.shape[2], size, size)
    for b in range(batch):
        for v in range(views):
            total = features.new_zeros(size, size)
            for p in range(count):
                weight = 1.0 if scores is None else float(scores[b, p].exp())
                row, column = places[b, v, p].tolist()
                for i in range(round(row) - 1, round(row) + 2):
                    for j in range(round(column) - 1, round(column) + 2):
                        share = weight
                        if splat == 'smooth':
                            share *= b_spline(i - row) * b_spline(j - column)
                        maps[b, v, :, i, j] += share * features[b, p]
                        total[i, j] += share
            if scores is not None:
                maps[b, v] /= torch.where(total == 0, 1, total)
    return maps


def b_spline(distance: float) -> float:
    distance = abs(distance)
    if distance < 0.5:
        return 0.75 - distance**2
    return 0.5 * (1.5 - distance) ** 2 if distance < 1.5 else 0.0


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('splat', SPLATS)
@pytest.mark.parametrize('reduce', REDUCTIONS)
def test_scatter_is_its_definition(form, splat, reduce):
    points = cloud(count=25)
    features = torch.randn(2, 25, 3, generator=torch.Generator().manual_seed(1))
    scores = features.sum(2) if reduce == 'softmax' else None
    places = place_on_views(points, form, 12)
    maps = scatter(features, places, 12, splat, scores)
    expected = scatter_by_loops(features, places, 12, splat, scores)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5)
    if splat == 'smooth' and reduce == 'sum':  # nothing is lost
        sums = maps.sum((3, 4))
        torch.testing.assert_close(sums, features.sum(1)[:, None].expand_as(sums))


@pytest.mark.parametrize('form', FORMS)
def test_clouds_fill_their_images(form):
    """But for a border of a pixel, wherever they are and however large; in the middle along shorter axes."""
    points = cloud()
    places = place_on_views(points, form, 32)
    assert places.min() == pytest.approx(1, abs=1e-4)
    assert places.max() == pytest.approx(30, abs=1e-4)
    middle = (places.amin(2) + places.amax(2)) / 2
    torch.testing.assert_close(middle, torch.full_like(middle, 15.5))
    moved = place_on_views(points * 7 + torch.tensor([3.0, -2.0, 1.0]), form, 32)
    torch.testing.assert_close(moved, places, rtol=1e-4, atol=1e-3)


def test_the_four_views_are_quarter_turns_of_the_published_code():
    """Around z by a quarter, then around x by 0 to 3 quarters, without the third coordinate."""
    points = cloud().double()
    axes, signs = QUARTERS['z']
    turned = points[..., axes] * torch.tensor(signs)
    expected = []
    for _ in range(4):
        expected.append(turned[..., :2])
        axes, signs = QUARTERS['x']
        turned = turned[..., axes] * torch.tensor(signs)
    places = place_on_views(points, 'four_views', 20)
    for view, image in zip(expected, places.unbind(1), strict=True):
        step = (image[:, 1:] - image[:, :-1]) / (view[:, 1:] - view[:, :-1])
        torch.testing.assert_close(step, step[:, :1, :1].expand_as(step))
        assert (step > 0).all()


@pytest.mark.parametrize('axis', QUARTERS)
@pytest.mark.parametrize('reduce', REDUCTIONS)
def test_a_quarter_turn_permutes_the_planes(axis, reduce):
    """With features held fixed; a plane whose axis changes its sign or place is flipped or transposed."""
    points = cloud()
    features = torch.randn(2, 60, 5, generator=torch.Generator().manual_seed(1))
    scores = features[..., 0] if reduce == 'softmax' else None
    sources, signs = QUARTERS[axis]
    turned = points[..., sources] * torch.tensor(signs)

    def maps_of(cloud):
        return scatter(features, place_on_views(cloud, 'three_planes', 24), 24, 'smooth', scores)

    before, after = maps_of(points), maps_of(turned)
    moved = []
    for number, plane in enumerate(PLANES):
        source = tuple(sources[a] for a in plane)
        expected = before[:, PLANES.index(tuple(sorted(source)))]
        if source[0] > source[1]:
            expected = expected.transpose(2, 3)
        flipped = [2 + i for i, a in enumerate(plane) if signs[a] < 0]
        torch.testing.assert_close(after[:, number], expected.flip(flipped), rtol=1e-3, atol=1e-4)
        moved.append(PLANES.index(tuple(sorted(source))))
    assert sorted(moved) == [0, 1, 2] and moved != [0, 1, 2]


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('splat', SPLATS)
@pytest.mark.parametrize('reduce', REDUCTIONS)
def test_gradients_of_the_scatter(form, splat, reduce):
    """To the features, to the scores, and, where weights follow them, to the points."""
    generator = torch.Generator().manual_seed(1)
    points = cloud(1, 9).double().requires_grad_(splat == 'smooth')
    features = torch.randn(1, 9, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    scores = torch.randn(1, 9, dtype=torch.float64, generator=generator, requires_grad=True)

    def maps(points, features, scores):
        places = place_on_views(points, form, 8)
        return scatter(features, places, 8, splat, scores if reduce == 'softmax' else None)

    assert torch.autograd.gradcheck(maps, (points, features, scores))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('reduce', REDUCTIONS)
def test_all_that_is_learned_and_the_points_get_gradients(form, reduce):
    model = bridge(form=form, reduce=reduce).train()
    points = cloud().requires_grad_()
    maps = model(points)
    assert maps.shape == (2 if form == 'three_planes' else 8, 3, 16, 16)
    assert maps.shape[0] == 2 * model.num_views
    (maps * torch.randn(maps.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    assert points.grad.isfinite().all() and (points.grad.abs().sum(2) > 0).all()
    for name, parameter in model.named_parameters():
        if not name.endswith(('conv1.bias', 'conv2.bias')):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_box_has_no_gradient_to_the_places():
    """As the published code, where coordinates count through the features alone."""
    points = cloud().requires_grad_()
    features = torch.ones(2, 60, 1, requires_grad=True)
    maps = scatter(features, place_on_views(points, 'three_planes', 16), 16, 'box')
    maps.sum().backward()
    assert points.grad is None and features.grad is not None


@torch.no_grad()
@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('reduce', REDUCTIONS)
@pytest.mark.parametrize('splat', SPLATS)
def test_the_order_of_the_points_does_not_matter(form, reduce, splat):
    model = bridge(form=form, reduce=reduce, splat=splat).eval()
    points = cloud()
    shuffled = points[:, torch.randperm(60, generator=torch.Generator().manual_seed(4))]
    assert relative_error(model(shuffled), model(points)) < 1e-5
    assert relative_error(model(cloud(seed=9)), model(points)) > 1e-2


@torch.no_grad()
@pytest.mark.parametrize('distance', [0.1, 1.0])
def test_the_order_does_not_matter_among_equal_distances(distance):
    model = bridge().eval()
    axis = torch.arange(6.0) * distance
    points = torch.cartesian_prod(axis, axis, axis)[None]
    shuffled = points[:, torch.randperm(216, generator=torch.Generator().manual_seed(4))]
    assert relative_error(model(shuffled), model(points)) < 1e-5


def test_no_clouds():
    assert bridge()(torch.zeros(0, 60, 3)).shape[:2] == (0, 3)


def test_scores_count_among_the_points_of_a_pixel_alone():
    places = torch.tensor([[[[2.0, 2.0], [9.0, 9.0]]]])
    scores = torch.tensor([[0.0, 500.0]])
    maps = scatter(torch.tensor([[[3.0], [5.0]]]), places, 12, 'smooth', scores)[0, 0, 0]
    torch.testing.assert_close(maps[[2, 9, 5], [2, 9, 5]], torch.tensor([3.0, 5.0, 0.0]))


def test_the_same_bits_every_time():
    """Forward and gradient, with two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        results = []
        for _ in range(3):
            model = bridge(size=32).train()
            points = cloud(4, 300).requires_grad_()
            maps = model(points)
            maps.square().sum().backward()
            gradients = [parameter.grad for parameter in model.parameters()]
            results.append([maps.detach(), points.grad, *gradients])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@torch.no_grad()
def test_clouds_do_not_depend_on_their_neighbours_in_the_batch():
    model = bridge(form='four_views').eval()
    points = cloud(3)
    together = model(points)
    for i in range(3):
        alone = model(points[i : i + 1])
        torch.testing.assert_close(together[4 * i : 4 * i + 4], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_in_bfloat16_sums_and_places_stay_exact():
    """A map of thousands of points, and coordinates to a pixel of 224, do not fit into 8 bits."""
    model = bridge().eval()
    points = cloud(1, 2000)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        features = model.features(points)
        maps = scatter(features, place_on_views(points, 'three_planes', 16), 16)
        images = model(points)
    assert features.dtype == torch.bfloat16 and maps.dtype == torch.float32
    sums = maps.sum((3, 4))
    torch.testing.assert_close(
        sums, features.float().sum(1)[:, None].expand_as(sums), rtol=1e-4, atol=0.1
    )
    assert relative_error(images, model(points)) < 0.1


@torch.no_grad()
def test_odd_clouds():
    model = bridge().eval()
    same = torch.full((1, 8, 3), 0.3)
    assert model(same).isfinite().all()  # in the middle of each plane
    points = cloud()
    points[1, 5, 2] = torch.nan
    maps = model(points)
    assert maps[1].isnan().any() and maps[0].isfinite().all()
    with pytest.raises(ArgumentError, match='4 neighbours are asked for in clouds of 3 points'):
        model(torch.randn(1, 3, 3))
    with pytest.raises(ArgumentError, match=r'point clouds are \(B, P, 3\), got \(2, 60, 2\)'):
        model(points[..., :2])


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(form='planes'), 'form must be three_planes or four_views'),
        (dict(splat='round'), 'splat must be smooth or box'),
        (dict(reduce='max'), 'reduce must be sum or softmax'),
        (dict(size=4), 'size must be at least 8'),
        (dict(num_neighbours=0), 'num_neighbours must be at least 1'),
        (dict(channels=10), 'channels must be a multiple of 4'),
    ],
)
def test_values_out_of_range(settings, message):
    with pytest.raises(ArgumentError, match=message):
        ThreeViewProjection(**settings)
