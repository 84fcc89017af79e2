"""The models of the index: where their files are, and by which names they are found."""

from pathlib import Path

import pytest
from mmengine.config import Config

from unireplknet_mm import zoo
from unireplknet_mm.weights import PUBLISHED

ROOT = Path(__file__).resolve().parents[1]


def test_models_have_a_config_a_task_and_figures():
    models = zoo.models()
    assert {model.task for model in models} == set(zoo.SCOPES)
    for model in models:
        cfg = Config.fromfile(model.config)
        assert model.config.resolve().is_relative_to(ROOT / 'configs')
        assert cfg.default_scope == model.scope
        assert model.figures and model.parameters > 1e6 and model.flops > 1e8
        assert model.weights in PUBLISHED or model.weights.startswith('https://drive.google.com/')


def test_names():
    model = zoo.find('cascade_unireplknet_t_3x')
    assert model == zoo.find('Cascade_UniRepLKNet_T_3x') == zoo.find('cascade_unireplknet_t_in1k')
    assert (model.scope, model.size, model.figures) == (
        'mmdet',
        (800, 1280),
        {'box AP': 51.8, 'mask AP': 44.9},
    )
    assert zoo.find('cascade_unireplknet_t') is None
    names = [name for model in zoo.models() for name in (model.name, *model.aliases)]
    assert len(set(names)) == len(names)


def test_an_installed_package_carries_its_configs(tmp_path, monkeypatch):
    package = tmp_path / 'site-packages' / 'unireplknet_mm'
    monkeypatch.setattr(zoo, '__file__', str(package / 'zoo.py'))
    (package / '.mim').mkdir(parents=True)
    with pytest.raises(zoo.MissingConfigsError, match='install the wheel, or the checkout'):
        zoo.models()
    (package / '.mim' / 'model-index.yml').write_bytes((ROOT / 'model-index.yml').read_bytes())
    assert zoo.home() == package / '.mim'
    assert zoo.find('unireplknet_a_in1k').config == (
        package / '.mim' / 'configs' / 'cls' / 'unireplknet_a_in1k.py'
    )
