"""Clips through the classifier: the backbone sees the grid, and of several views the mean score counts."""

import pytest
import torch
from helpers import SMALL_ARCH, load_config, randomise, relative_error
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from tool_runs import CONFIGS

import unireplknet_mm.modalities.video  # noqa: F401
from unireplknet_mm.measuring.catalogue import find_config_model
from unireplknet_mm.models.whole_model import switch_to_deploy

CONFIG = CONFIGS / 'video_small.py'


def classifier(layout: str = 'grid', num_frames: int = 4, embedding: bool = True):
    cfg = dict(
        type='VideoClassifier' if embedding else 'ImageClassifier',
        backbone=dict(
            type='UniRepLKNet', arch=SMALL_ARCH, out_indices=(3,), gap_before_final_norm=True
        ),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=32),
    )
    if embedding:
        cfg['embedding'] = dict(type='FrameGrid', num_frames=num_frames, layout=layout)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return randomise(MODELS.build(cfg)).eval()


@pytest.fixture(scope='module')
def model():
    return classifier()


@torch.no_grad()
def test_the_backbone_sees_one_image(model):
    clips = torch.randn(2, 4, 3, 32, 48)
    rows = [torch.cat(row.unbind(1), -1) for row in (clips[:, :2], clips[:, 2:])]
    image = torch.cat(rows, -2)
    plain = classifier(embedding=False)
    assert plain.state_dict().keys() == model.state_dict().keys()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(clips), plain(image))


@torch.no_grad()
def test_scores_of_views_are_averaged(model):
    views = torch.randn(2, 6, 4, 3, 32, 32)
    single = torch.stack([model(views[:, i]).softmax(-1) for i in range(6)]).mean(0)
    samples = [DataSample().set_gt_label(3), DataSample().set_gt_label(1)]
    predicted = model(views, samples, mode='predict')
    assert [sample.gt_label.item() for sample in predicted] == [3, 1]
    for sample, score in zip(predicted, single, strict=True):
        torch.testing.assert_close(sample.pred_score, score, rtol=1e-5, atol=1e-6)
        assert sample.pred_label.tolist() == [int(score.argmax())]
        assert sample.pred_score.sum().item() == pytest.approx(1, abs=1e-5)
    assert len(model(views, mode='predict')) == 2
    logits = model(views[:, 0], mode='tensor')
    one = model(views[:, 0], mode='predict')
    torch.testing.assert_close(one[0].pred_score, logits[0].softmax(-1))


@torch.no_grad()
@pytest.mark.parametrize('layout', ['grid', 'reshape'])
def test_deploy_form_gives_the_same_scores(layout):
    model = classifier(layout)
    clips = torch.randn(2, 4, 3, 32, 32)
    before = model(clips)
    assert switch_to_deploy(model) > 0
    assert relative_error(model(clips), before) < 1e-4


@torch.no_grad()
def test_order_of_the_frames_matters(model):
    clips = torch.randn(1, 4, 3, 32, 32)
    assert relative_error(model(clips.flip(1)), model(clips)) > 1e-2


@pytest.mark.parametrize('layout', ['grid', 'reshape'])
def test_steps_of_videos_can_be_measured(layout):
    """What tools/benchmark.py runs: random clips of `input_shape`, inference and a training step."""
    cfg = load_config(CONFIG)
    cfg.model.embedding.layout = layout
    task = find_config_model(cfg)()
    clips = task.make_batch(2, cfg.input_shape[-2:], 'cpu')
    assert clips.shape == (2, *cfg.input_shape) == (2, 4, 3, 32, 32)
    assert task.infer(task.model.eval(), clips).shape == (2, 400)
    loss = task.loss(task.model.train(), clips)
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in task.model.parameters())
