"""Models by name: whose they are, the same weights each time, and what is said of unknown ones."""

import builtins
from pathlib import Path

import pytest
import torch
from helpers import relative_error
from mmengine.config import Config
from tool_runs import CONFIGS

from unireplknet_mm.errors import ArgumentError, MissingPackageError, UserError
from unireplknet_mm.measuring import catalogue
from unireplknet_mm.measuring.catalogue import find_config_model, find_model
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.whole_model import find_backbones, switch_to_deploy

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_timm(monkeypatch):
    """Importing timm fails as where it is not installed."""
    real = builtins.__import__

    def fake(name, *args, **kwargs):
        if name == 'timm' or name.startswith('timm.'):
            raise ModuleNotFoundError("No module named 'timm'", name='timm')
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', fake)


def test_a_name_of_the_suite():
    build = find_model('unireplknet_a')
    first, second = build().model.state_dict(), build().model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    (backbone,) = find_backbones(build().model).values()
    assert backbone.arch_settings['channels'] == UniRepLKNet.ARCHITECTURES['a']['channels']


def test_weights_show_a_fold_that_is_wrong():
    task = find_model('unireplknet_a')()
    model = task.model.eval()
    x = task.make_batch(1, (64, 64), 'cpu')
    with torch.no_grad():
        before = model(x)
        switch_to_deploy(model)
        assert relative_error(model(x), before) < 1e-4
        model.backbone.stages[2][0].dwconv.lk_origin.weight[:, :, 6, 6] *= 1.5
        assert relative_error(model(x), before) > 1e-3


def test_settings_are_the_backbones():
    model = find_model('unireplknet_a', branches={13: ()})().model
    names = [name for name, _ in model.named_parameters() if 'dil_conv' in name]
    assert not names
    with pytest.raises(
        ArgumentError, match='slak_t takes no settings of the backbone, got branches'
    ):
        find_model('slak_t', branches={})


def test_mmpretrain_by_its_name():
    task = find_model('mmpretrain:resnet18_8xb32_in1k')()
    logits = task.infer(task.model.eval(), task.make_batch(1, (32, 32), 'cpu'))
    assert logits.shape == (1, 1000)


def test_timm_by_its_name():
    pytest.importorskip('timm', reason='timm is not installed')
    for name in ('convnextv2_atto', 'timm:convnextv2_atto'):
        task = find_model(name)()
        assert task.model(task.make_batch(1, (32, 32), 'cpu')).shape == (1, 1000)
        assert (task.model.stages[0].blocks[0].mlp.grn.weight.abs() > 0.001).any()


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('unireplknet_tt', 'unireplknet_t'),
        ('slak', 'slak_t'),
        ('resnet18_8xb32_in1', 'resnet18_8xb32_in1k'),
    ],
)
def test_unknown_names_suggest_what_was_meant(name, meant):
    with pytest.raises(UserError, match=rf"unknown model '{name}'(.|\n)*Did you mean .*{meant}"):
        find_model(name)


def test_unknown_library():
    with pytest.raises(
        ArgumentError,
        match="unknown library 'hub' in 'hub:x': choose timm, mmpretrain or a Python file",
    ):
        find_model('hub:x')


def test_a_network_of_a_file(tmp_path):
    file = tmp_path / 'strangers.py'
    file.write_text(
        'from torch import nn\n'
        'def small(): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 2, 5))\n'
    )
    build = find_model(f'{file}:small')
    x = torch.randn(4, 3, 2, 2)
    with torch.no_grad():
        logits, again = (task.model(x) for task in (build(), build()))
    assert logits.shape == (4, 5) and torch.equal(logits, again)


def test_files_that_give_no_network(tmp_path):
    file = tmp_path / 'strangers.py'
    with pytest.raises(ArgumentError, match='there is no file'):
        find_model(f'{file}:small')
    file.write_text('number = 3')
    with pytest.raises(ArgumentError, match="has no function 'number'"):
        find_model(f'{file}:number')
    with pytest.raises(ArgumentError, match='has no weights'):
        find_model(f'{file}:number', pretrained=True)
    file.write_text('import a_package_that_is_nowhere')
    with pytest.raises(ArgumentError, match='ModuleNotFoundError'):
        find_model(f'{file}:small')


def test_without_timm(no_timm):
    with pytest.raises(MissingPackageError, match='timm is not installed: pip install timm'):
        find_model('timm:convnext_tiny')
    with pytest.raises(ArgumentError, match='timm is not installed: pip install timm'):
        find_model('convnext_tiny')
    assert not catalogue.has_timm()
    find_model('unireplknet_a')


@pytest.mark.parametrize('name', ['rtmdet_unireplknet_t_100e', 'mask_rcnn_unireplknet_a_1x'])
def test_detectors_get_masks_where_they_learn_them(name):
    """RTMDet fails on masks."""
    cfg = Config.fromfile(ROOT / f'configs/det/{name}.py')
    cfg.model.backbone.arch = dict(depths=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    cfg.model.neck.in_channels = [8] * len(cfg.model.neck.in_channels)
    task = find_config_model(cfg)()
    loss = task.loss(task.model, task.make_batch(1, (64, 64), 'cpu'))
    assert torch.isfinite(loss) and loss.requires_grad


@pytest.mark.parametrize('name', ['cls_small', 'seg_small', 'det_small'])
def test_models_of_configs(name):
    size = (64, 96)
    task = find_config_model(Config.fromfile(CONFIGS / f'{name}.py'))()
    batch = task.make_batch(2, size, 'cpu')
    model = task.model.eval()
    with torch.no_grad():
        task.infer(model, batch)
        outputs = task.outputs(model, batch)
    assert outputs and all(tensor.shape[0] == 2 for tensor in outputs)
    task.loss(model.train(), batch).backward()
    gradients = [p.grad for p in find_backbones(model)['backbone.'].stages.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_a_config_that_its_model_writes_into_is_built_again():
    cfg = Config.fromfile(ROOT / 'configs/det/dino_unireplknet_t_12e.py')
    cfg.model.backbone.arch = dict(depths=(1, 1, 1, 1), channels=(8, 8, 8, 8))
    cfg.model.neck.in_channels = [8] * len(cfg.model.neck.in_channels)
    build = find_config_model(cfg)
    first, second = (build().model.state_dict() for _ in range(2))
    assert first.keys() == second.keys()


def test_a_config_of_another_task(tmp_path):
    path = tmp_path / 'x.py'
    path.write_text("model = dict(type='X')\ndefault_scope = 'mmaction'\n")
    with pytest.raises(ArgumentError, match=r"x\.py: cannot be measured: .* got 'mmaction'"):
        find_config_model(Config.fromfile(path))
