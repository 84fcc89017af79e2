"""The suite's configs and names in `get_model` and the inferencers of the toolboxes, on a picture."""

import functools

import numpy as np
import pytest
import torch
from helpers import (
    assert_body_loaded,
    fill_hub_cache,
    published_weights,
    randomise,
    save,
    write_small_zoo,
)
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmpretrain import ImageClassificationInferencer, get_model, inference_model, list_models
from mmpretrain.apis.model import ModelHub
from mmseg.apis import MMSegInferencer
from PIL import Image
from tool_runs import CONFIGS

from unireplknet_mm import zoo
from unireplknet_mm.datasets import make_demo_data
from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.integrations import openmmlab
from unireplknet_mm.models.whole_model import switch_to_deploy
from unireplknet_mm.weights import PUBLISHED, CheckpointError
from unireplknet_mm.weights.published import REPOSITORY

CLASSES = [f'digit {i}' for i in range(1000)]
COUNTS = dict(cls=1000, det=80, seg=11)


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    folder = make_demo_data('coco', tmp_path_factory.mktemp('demo') / 'coco', 1, 1, size=(120, 96))
    return str(next(folder.rglob('*.jpg')))


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with a checkpoint of each small config, far from its initialisation."""
    folder = tmp_path_factory.mktemp('trained')
    for task, scope in zoo.SCOPES.items():
        cfg = Config.fromfile(CONFIGS / f'{task}_small.py')
        with DefaultScope.overwrite_default_scope(scope):
            model = randomise(MODELS.build(cfg.model))
        dataset_meta = dict(classes=CLASSES[: COUNTS[task]])
        if task == 'seg':
            dataset_meta['palette'] = [[i, i, i] for i in range(11)]
        if task == 'det':  # else every box would be background
            for head in model.roi_head.bbox_head:
                head.fc_cls.bias.data[3] = 20
        content = dict(meta=dict(dataset_meta=dataset_meta), state_dict=model.state_dict())
        save(folder / f'{task}_small.pth', content)
    return folder


@pytest.fixture
def names(tmp_path, trained, monkeypatch):
    """An index with the small configs in the place of the suite's."""
    home = tmp_path / 'home'
    home.mkdir()
    write_small_zoo(home, trained)
    monkeypatch.setattr(zoo, 'home', lambda: home)
    list_models()  # registers mmpretrain's own, once a process
    monkeypatch.setattr(ModelHub, '_models_dict', dict(ModelHub._models_dict))
    openmmlab.register_in_mmpretrain()


def of_name_or_config(task: str) -> list:
    """The arguments that lead to the small model: its name, or its config and the checkpoint."""
    return [f'{task}_small', CONFIGS / f'{task}_small.py']


def assert_same_body(model: torch.nn.Module, checkpoint) -> None:
    weights = torch.load(checkpoint)['state_dict']
    body = {
        name.removeprefix('backbone.'): value
        for name, value in weights.items()
        if name.startswith('backbone.')
    }
    assert_body_loaded(model.backbone, body)


@pytest.mark.parametrize('model', of_name_or_config('cls'), ids=['name', 'config'])
def test_classification(names, picture, trained, model):
    weights = trained / 'cls_small.pth'
    pretrained = True if isinstance(model, str) else str(weights)
    inferencer = ImageClassificationInferencer(str(model), pretrained=pretrained, device='cpu')
    assert_same_body(inferencer.model, weights)
    (result,) = inferencer(picture)
    scores = result['pred_scores']
    assert scores.shape == (1000,) and scores.sum() == pytest.approx(1, abs=1e-5)
    assert result['pred_label'] == scores.argmax()
    again = inference_model(get_model('cls_small', pretrained=True), picture)
    assert np.array_equal(again['pred_scores'], scores)


@pytest.mark.parametrize('model', of_name_or_config('det'), ids=['name', 'config'])
def test_detection(names, picture, trained, model):
    weights = None if isinstance(model, str) else str(trained / 'det_small.pth')
    inferencer = DetInferencer(str(model), weights, device='cpu', show_progress=False)
    assert_same_body(inferencer.model, trained / 'det_small.pth')
    assert inferencer.model.dataset_meta['classes'] == CLASSES[:80]
    found = inferencer(picture, return_vis=True, pred_score_thr=0.0)
    (prediction,) = found['predictions']
    assert len(prediction['bboxes']) == len(prediction['scores']) == len(prediction['labels']) > 0
    assert np.isfinite(prediction['bboxes']).all() and set(prediction['labels']) == {3}
    assert found['visualization'][0].shape == np.asarray(Image.open(picture)).shape


@pytest.mark.parametrize('model', of_name_or_config('seg'), ids=['name', 'config'])
def test_segmentation(names, picture, trained, model):
    weights = None if isinstance(model, str) else str(trained / 'seg_small.pth')
    inferencer = MMSegInferencer(str(model), weights, device='cpu')
    assert_same_body(inferencer.model, trained / 'seg_small.pth')
    found = inferencer(picture, return_vis=True)
    width, height = Image.open(picture).size
    assert found['predictions'].shape == (height, width)
    assert set(np.unique(found['predictions'])) <= set(range(11))
    assert found['visualization'].shape == (height, width, 3)


INFERENCERS = dict(
    cls=functools.partial(ImageClassificationInferencer, device='cpu'),
    det=functools.partial(DetInferencer, device='cpu'),
    seg=functools.partial(MMSegInferencer, device='cpu'),
)
HEADS = dict(cls='head.fc.', det='roi_head.bbox_head.0.fc_cls.', seg='decode_head.conv_seg.')


@pytest.mark.parametrize('task', INFERENCERS)
def test_a_folded_checkpoint_folds_the_model(task, names, trained, tmp_path):
    folder, config = trained, str(CONFIGS / f'{task}_small.py')
    whole = INFERENCERS[task](config, str(folder / f'{task}_small.pth')).model
    content = torch.load(folder / f'{task}_small.pth')
    switch_to_deploy(whole)
    save(tmp_path / 'folded.pth', dict(meta=content['meta'], state_dict=whole.state_dict()))
    folded = INFERENCERS[task](config, str(tmp_path / 'folded.pth')).model
    assert folded.backbone.deploy
    assert_body_loaded(folded.backbone, whole.backbone.state_dict())


@pytest.mark.parametrize('task', INFERENCERS)
def test_a_head_of_other_classes_is_an_error(task, names, trained, tmp_path):
    content = torch.load(trained / f'{task}_small.pth')
    weights = content['state_dict']
    for kind in ('weight', 'bias'):
        weights[f'{HEADS[task]}{kind}'] = weights[f'{HEADS[task]}{kind}'][:5]
    path = save(tmp_path / 'five.pth', content)
    with pytest.raises(CheckpointError) as info:
        INFERENCERS[task](str(CONFIGS / f'{task}_small.py'), str(path))
    first, advice = str(info.value).splitlines()
    assert first.startswith(
        f'checkpoint {path}: weights have another shape: {HEADS[task]}weight (5, '
    )
    assert advice.startswith('Test with the config that it was trained with, or set num_classes')


def test_the_suites_models_are_known():
    classifiers = {model.name for model in zoo.models() if model.task == 'cls'}
    listed = set(list_models('unireplknet'))
    assert classifiers <= listed and 'unireplknet_s_in22k_to_in1k' in listed
    assert not any('cascade' in name or 'upernet' in name for name in listed)
    assert get_model('unireplknet_a_in1k', head=dict(num_classes=7)).head.fc.out_features == 7


def test_published_weights_by_name(hub_cache, tmp_path, picture):
    """A raw file, whose names are not a classifier's."""
    raw = published_weights('a')
    path = save(tmp_path / PUBLISHED['unireplknet_a_in1k'].file_name, dict(model=raw))
    fill_hub_cache(hub_cache, REPOSITORY, path)
    config = str(zoo.find('unireplknet_a_in1k').config)
    for model in (
        get_model('unireplknet_a_in1k', pretrained=True),
        get_model(config, pretrained='unireplknet_a_in1k'),
        get_model(config, pretrained=str(path)),
    ):
        assert_body_loaded(model.backbone, raw)
        assert torch.equal(model.head.fc.weight, raw['head.weight'])
        assert torch.equal(model.backbone.norm.weight, raw['norm.weight'])
    with pytest.raises(CheckpointError, match='the model is UniRepLKNet-F'):
        get_model(str(zoo.find('unireplknet_f_in1k').config), pretrained='unireplknet_a_in1k')


def test_a_name_of_another_toolbox():
    with pytest.raises(ArgumentError) as info:
        DetInferencer('unireplknet_t_in1k', device='cpu')
    assert str(info.value) == (
        'unireplknet_t_in1k is a model of mmpretrain: give it to mmpretrain.ImageClassificationInferencer, '
        'not to DetInferencer'
    )


def test_weights_that_only_a_page_offers():
    name = next(m.name for m in zoo.models() if m.task == 'det' and m.weights not in PUBLISHED)
    with pytest.raises(CheckpointError, match='is a page to download from by hand'):
        DetInferencer(name, device='cpu')


def test_the_toolboxes_own_names_still_work():
    assert type(get_model('resnet18_8xb16_cifar10').backbone).__name__ == 'ResNet_CIFAR'
    with pytest.raises(ValueError, match='Cannot find model: nothing in mmdet'):
        DetInferencer('nothing', device='cpu')
