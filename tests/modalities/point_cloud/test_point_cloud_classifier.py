"""Clouds through the classifier: views in the batch, votes, folding, benchmarks; PointNet; the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL_ARCH, load_config, randomise, relative_error
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from tool_runs import CONFIGS

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.measuring.catalogue import find_config_model
from unireplknet_mm.modalities.point_cloud import PointClouds, PointNet, draw_cloud
from unireplknet_mm.modalities.predictions import ClassPrediction, Labels
from unireplknet_mm.models.whole_model import switch_to_deploy

POINTS = torch.randn(3, 40, 3, generator=torch.Generator().manual_seed(0))


def classifier(form: str = 'three_planes'):
    views = 1 if form == 'three_planes' else 4
    cfg = dict(
        type='PointCloudClassifier',
        embedding=dict(
            type='ThreeViewProjection', form=form, size=32, num_neighbours=8, channels=8
        ),
        backbone=dict(
            type='UniRepLKNet', arch=SMALL_ARCH, out_indices=(3,), gap_before_final_norm=True
        ),
        neck=None if views == 1 else dict(type='ConcatenateViews', num_views=views),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=32 * views),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return randomise(MODELS.build(cfg)).eval()


@torch.no_grad()
def test_features_of_the_four_views_stand_side_by_side():
    model = classifier('four_views')
    features = model.extract_feat(POINTS)[0]
    assert features.shape == (3, 4 * 32)
    maps = model.embed(POINTS)
    for cloud in range(3):
        for view in range(4):
            alone = model.backbone(maps[4 * cloud + view][None])[0]
            part = features[cloud, 32 * view : 32 * view + 32]
            torch.testing.assert_close(part[None], alone, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_maps_are_averaged_and_wrong_counts_refused():
    neck = MODELS.build(dict(type='ConcatenateViews', num_views=2))
    maps = torch.randn(6, 4, 3, 5)
    (features,) = neck((maps,))
    assert torch.allclose(features[1], maps[2:4].mean((2, 3)).flatten(), atol=1e-6)
    with pytest.raises(ArgumentError, match='5 maps are no 2 views of each cloud'):
        neck((maps[:5],))
    with pytest.raises(ArgumentError, match='num_views must be at least 1'):
        MODELS.build(dict(type='ConcatenateViews', num_views=0))


@torch.no_grad()
@pytest.mark.parametrize('form', ['three_planes', 'four_views'])
def test_scores_of_turned_copies_are_averaged(form):
    model = classifier(form)
    views = torch.randn(2, 6, 40, 3)
    single = torch.stack([model(views[:, i]).softmax(-1) for i in range(6)]).mean(0)
    samples = [DataSample().set_gt_label(3), DataSample().set_gt_label(1)]
    predicted = model(views, samples, mode='predict')
    assert [sample.gt_label.item() for sample in predicted] == [3, 1]
    for sample, score in zip(predicted, single, strict=True):
        torch.testing.assert_close(sample.pred_score, score, rtol=1e-4, atol=1e-5)
    one = model(views[:, 0], mode='predict')
    torch.testing.assert_close(one[0].pred_score, model(views[:, 0])[0].softmax(-1))


@torch.no_grad()
@pytest.mark.parametrize('form', ['three_planes', 'four_views'])
def test_deploy_form_gives_the_same_scores(form):
    model = classifier(form)
    before = model(POINTS)
    assert switch_to_deploy(model) > 0
    assert relative_error(model(POINTS), before) < 1e-4


def test_steps_of_clouds_can_be_measured():
    """What tools/benchmark.py runs: random clouds of `input_shape`, inference and a training step."""
    task = find_config_model(load_config(CONFIGS / 'point_cloud_small.py'))()
    clouds = task.make_batch(2, (64, 3), 'cpu')
    assert clouds.shape == (2, 64, 3)
    assert task.infer(task.model.eval(), clouds).shape == (2, 15)
    loss = task.loss(task.model.train(), clouds)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in task.model.parameters())


def pointnet() -> PointNet:
    torch.manual_seed(0)
    return PointNet(channels=(8, 8, 16), hidden_channels=(12, 10))


def column(points: torch.Tensor) -> torch.Tensor:
    return MODELS.build(dict(type='PointColumn'))(points)


@torch.no_grad()
def test_pointnet_takes_a_set_of_points():
    model = randomise(pointnet()).eval()
    (features,) = model(column(POINTS))
    assert features.shape == (3, 10)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(column(POINTS[:, order]))[0], features)
    repeated = torch.cat([POINTS, POINTS[:, :7]], 1)  # a set has each point once
    torch.testing.assert_close(model(column(repeated))[0], features)
    assert relative_error(model(column(POINTS + 0.5))[0], features) > 1e-2


def test_pointnet_starts_without_a_transform_and_learns_one():
    model = pointnet()
    torch.testing.assert_close(model.transform(column(POINTS)), column(POINTS))
    model(column(POINTS))[0].square().sum().backward()
    assert model.transform.matrix.weight.grad.abs().sum() > 0
    with torch.no_grad():
        model.transform.matrix.bias[1] = 2  # x' = x + 2 y
    turned = model.transform(column(POINTS))[..., 0]
    torch.testing.assert_close(turned[:, 0], POINTS[..., 0] + 2 * POINTS[..., 1])
    with pytest.raises(ArgumentError, match=r'point clouds are \(B, P, 3\)'):
        column(POINTS[..., :2])


def test_the_picture_shows_cloud_maps_and_classes():
    maps = torch.rand(3, 16, 16)
    picture = draw_cloud(POINTS[0], maps, ['cone 0.9', 'box 0.1'], 'a_$1.ply')
    assert picture.dtype == np.uint8 and picture.shape == (320, 1040, 3)
    other = draw_cloud(POINTS[0], maps.flip(1), ['cone 0.9', 'box 0.1'], 'a_$1.ply')
    left, right = np.hsplit(picture, [260])
    assert np.array_equal(left, other[:, :260]) and not np.array_equal(right, other[:, 260:])
    assert draw_cloud(POINTS[0], None).shape == (320, 260, 3)


@pytest.mark.parametrize('views', [1, 6])
def test_predictions_draw_what_the_backbone_gets(views):
    """Of several copies the first; of PointNet, whose maps are no images, the cloud alone."""
    inputs = POINTS[:1].expand(views, -1, -1) * torch.arange(1, views + 1)[:, None, None]
    inputs = inputs if views > 1 else inputs[0]
    sample = type('Sample', (), dict(pred_score=torch.tensor([0.7, 0.3])))
    prediction = ClassPrediction(Path('a.ply'), inputs, sample, Labels(['box', 'cone']))
    kind = PointClouds()
    kind.watch(classifier())
    with torch.no_grad():
        maps = kind.model.embed(POINTS[:1])[0]
    expected = draw_cloud(POINTS[0], maps, ['box 0.700', 'cone 0.300'], 'a.ply')
    assert np.array_equal(kind.draw(prediction, [], {}), expected)
    cfg = dict(
        type='PointCloudClassifier',
        embedding=dict(type='PointColumn'),
        backbone=dict(type='PointNet'),
        head=dict(type='LinearClsHead', num_classes=2, in_channels=256),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        kind.watch(MODELS.build(cfg).eval())
    assert kind.draw(prediction, [], {}).shape == (320, 260, 3)
