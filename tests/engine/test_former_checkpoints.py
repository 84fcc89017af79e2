"""Detectors of mmdet 2 and segmenters of mmseg 0 load as they are, and heads of other classes are noticed.

The names and shapes of necks and heads are those of mmdet 2.28 and mmseg 0.27, as the configs of the authors'
code build them for T; the backbone's are the published ones.
"""

import json
from pathlib import Path

import pytest
import torch
from helpers import published_weights, save, without
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from unireplknet_mm.engine.loading import load_and_report
from unireplknet_mm.models.state_dict import find_state_dict
from unireplknet_mm.models.whole_model import adapt_state_dict, check_not_only_backbone
from unireplknet_mm.weights import CheckpointError, load_checkpoint_file

ROOT = Path(__file__).resolve().parents[2]
KEYS = ROOT / 'tests' / 'data' / 'former_checkpoints'
KINDS = {
    'det/cascade_unireplknet_t_3x.py': 'cascade_mask_rcnn_mmdet_2.json',
    'seg/upernet_unireplknet_t_160k.py': 'upernet_mmseg_0.json',
}
both = pytest.mark.parametrize('config', KINDS)


def former_checkpoint(config: str, averaged: bool) -> dict:
    """What mmcv 1's runner wrote; tensor number i is filled with i, its copy for averaging with -1."""
    body = without(published_weights('t'), 'norm.', 'head.')
    for i in range(4):
        channels = body[f'downsample_layers.{i}.{0 if i else 3}.weight'].shape[0]
        body |= {
            f'norm{i}.{name}': torch.tensor(1.0).expand(channels) for name in ('weight', 'bias')
        }
    shapes = {f'backbone.{name}': value.shape for name, value in body.items()}
    shapes |= json.loads((KEYS / KINDS[config]).read_text())
    weights = {
        name: torch.tensor(i if name.endswith('num_batches_tracked') else float(i)).expand(shape)
        for i, (name, shape) in enumerate(shapes.items())
    }
    if averaged:  # by mmdet 2's ExpMomentumEMAHook
        copies = [name for name in weights if not name.endswith('num_batches_tracked')]
        weights |= {
            f'ema_{name.replace(".", "_")}': torch.tensor(-1.0).expand(weights[name].shape)
            for name in copies
        }
    meta = dict(CLASSES=('person',), mmdet_version='2.28.1', epoch=36, iter=263808)
    return dict(meta=meta, state_dict=weights, optimizer=dict(state={}))


def build(config: str, **num_classes: int) -> nn.Module:
    """The config's model; its memory is not initialised, as everything is to be loaded."""
    cfg = Config.fromfile(ROOT / 'configs' / config)
    cfg.model.backbone.pop('init_cfg')
    if num_classes:
        heads = [cfg.model.get('decode_head'), cfg.model.get('auxiliary_head')]
        roi_head = cfg.model.get('roi_head') or {}
        heads += [*(roi_head.get('bbox_head') or []), roi_head.get('mask_head')]
        for head in filter(None, heads):
            head.update(num_classes)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        return MODELS.build(cfg.model).to_empty(device='cpu')


def load(model: nn.Module, checkpoint: dict, is_training: bool = False) -> None:
    """As CheckpointCheckHook does before the runner loads what this leaves."""
    weights = adapt_state_dict(find_state_dict(checkpoint), model)
    check_not_only_backbone(weights, model)
    model.load_state_dict(load_and_report(weights, model, is_training))


def reports(log: list[str]) -> list[str]:
    return [line for line in log if line.startswith('Weights of the checkpoint in the model')]


@both
@pytest.mark.parametrize('averaged', [False, True])
def test_everything_in_a_former_file_is_loaded(tmp_path, log, config, averaged):
    path = save(tmp_path / 'former.pth', former_checkpoint(config, averaged))
    assert path.stat().st_size < 2e6, 'the tensors are single numbers'
    checkpoint = load_checkpoint_file(path)
    model = build(config)
    load(model, checkpoint)
    assert not reports(log), 'there is nothing to report'
    weights = checkpoint['state_dict']
    assert {name for name in weights if not name.startswith('ema_')} == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert (value == weights[name].flatten()[0]).all(), name


@both
def test_other_classes_are_an_error_in_a_test_and_a_note_in_fine_tuning(log, config):
    checkpoint = former_checkpoint(config, averaged=False)
    model = build(config, num_classes=3)
    with pytest.raises(CheckpointError) as info:
        load(model, checkpoint)
    first, *advice = str(info.value).splitlines()
    name = (
        'roi_head.bbox_head.0.fc_cls.weight' if 'det' in config else 'decode_head.conv_seg.weight'
    )
    shapes = (
        '(81, 1024) in the file, (4, 1024)'
        if 'det' in config
        else ('(150, 512, 1, 1) in the file, (3, 512, 1, 1)')
    )
    assert (
        first.startswith('weights have another shape:') and f'{name} {shapes} in the model' in first
    )
    assert 'set num_classes of the heads' in advice[0] and 'train with load_from' in advice[0]

    load(model, checkpoint, is_training=True)
    (report,) = reports(log)
    assert f'Of another shape, initialised anew: {name} {shapes}' in report
    row = next(line for line in report.splitlines() if line.startswith('backbone'))
    loaded, *lacking = map(int, row.split()[1:])
    assert loaded > 400 and lacking == [0, 0, 0]
    assert (model.backbone.norm3.bias == checkpoint['state_dict']['backbone.norm3.bias']).all()
