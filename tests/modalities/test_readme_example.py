"""The example in the modalities' README: its three files are written, trained, folded and tested."""

import re
from pathlib import Path

import pytest
import torch
from helpers import randomise
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from unireplknet_mm import modalities
from unireplknet_mm.datasets import layouts, use_demo_data
from unireplknet_mm.datasets.layouts import LAYOUTS
from unireplknet_mm.launch.folding import build_model, fold

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / 'unireplknet_mm/modalities/README.md'
FILES = re.findall(
    r'<!-- file: (\S+) -->\n```python\n(.*?)```', README.read_text(encoding='utf-8'), re.DOTALL
)
REGISTERED = dict(FoldReadings=MODELS, LoadGesture=TRANSFORMS, Gestures=DATASETS)


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The config, with the packages of the suite extended by the example's files."""
    assert len(FILES) == 3
    for name, text in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / 'configs/_base_').symlink_to(ROOT / 'configs/_base_')
    folders = {modalities: 'modalities', layouts: 'datasets/layouts'}
    for package, folder in folders.items():
        monkeypatch.setattr(package, '__path__', [*package.__path__, str(tmp_path / folder)])
    monkeypatch.setitem(LAYOUTS, 'gestures', layouts._find_layouts()['gestures'])
    cfg = Config.fromfile(tmp_path / 'configs/gestures/unireplknet_gestures.py')
    import_modules_from_strings(**cfg.custom_imports)
    yield cfg
    for name, registry in REGISTERED.items():
        registry.module_dict.pop(name)


def test_the_example_trains_folds_and_tests(example, tmp_path):
    cfg = example
    use_demo_data(cfg, tmp_path / 'demo', train_images=8, val_images=4)
    cfg.work_dir, cfg.experiment_name = str(tmp_path / 'work'), tmp_path.name
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    before = {name: value.clone() for name, value in runner.model.named_parameters()}
    runner.train()
    moved = [n for n, value in runner.model.named_parameters() if not torch.equal(value, before[n])]
    assert len(moved) > 0.9 * len(before)
    assert 'val/accuracy/top1' in runner.message_hub.log_scalars
    model = randomise(build_model(cfg)).eval()
    assert fold(model, cfg, 'the example') < 1e-4
    assert model(torch.zeros(2, *cfg.input_shape)).shape == (2, 2)
