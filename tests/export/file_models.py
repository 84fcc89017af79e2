"""Small models of every task, and what the tests of exported files share."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import load_config, randomise
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from unireplknet_mm.export import FORMATS, PRECISIONS, Deployable, deployable, find_format, load
from unireplknet_mm.export.comparison import Comparison, compare
from unireplknet_mm.export.formats import Settings
from unireplknet_mm.export.rewriting import open_pools, wrap_convolutions, write_pointwise
from unireplknet_mm.models.whole_model import switch_to_deploy

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'tests' / 'data' / 'configs'
# The task, its config, the shape of a sample, and what may be left open.
SMALL = dict(
    classifier=('cls_small.py', (3, 64, 64), ('batch', 'size')),
    segmenter=('seg_small.py', (3, 64, 96), ('batch', 'size')),
    videos=('video_small.py', (4, 3, 32, 32), ('batch',)),
    points=('point_cloud_small.py', (64, 3), ('batch',)),
    series=('series_small.py', (24, 3), ('batch',)),
)
# `make test-export` runs what takes more than a few seconds.
slow = pytest.mark.skipif(
    not os.environ.get('UNIREPLKNET_TEST_EXPORT'),
    reason='takes minutes: make test-export',
)


def build(name: str, folds: bool = True, **changes: Any) -> nn.Module:
    """A model with weights that matter; `changes` are those of its config."""
    cfg = load_config(CONFIGS / SMALL[name][0])
    cfg.merge_from_dict(dict(model=changes))
    init_default_scope(cfg.default_scope)
    if cfg.get('data_preprocessor') is not None:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    if 'norm_cfg' in cfg.model.backbone:
        cfg.model.backbone.norm_cfg = dict(type='BN')
    model = randomise(MODELS.build(cfg.model).eval())
    if folds:
        switch_to_deploy(model)
    return model


def function_of(name: str) -> Deployable:
    return deployable(build(name), **(dict(logits=True) if name == 'segmenter' else {}))


def write(
    function: Deployable,
    path: Path,
    shape: tuple[int, ...],
    dynamic: tuple[str, ...],
    precision: str = 'fp32',
    batch_size: int = 2,
    calibration: tuple = (),
) -> Path:
    """Write the format that the name of the path says."""
    format = next(one for one in FORMATS.values() if path.name.endswith(one.suffix))
    copied = copy.deepcopy(function)
    if 'size' in dynamic:
        open_pools(copied)
    wrap_convolutions(copied)
    write_pointwise(copied, format.pointwise, by_rows=precision != 'int8')
    if precision != 'fp32' and not format.lowers_precision:
        copied.to_precision(PRECISIONS[precision])
    example = function.example(batch_size, shape)
    settings = Settings(precision, dynamic, dict(classes=['a', 'b']), calibration)
    format.write(copied, example, path, settings)
    return path


def agreement(
    function: Deployable, run, shapes: list[tuple[int, ...]], precision: str = 'fp32'
) -> Comparison:
    """Of inputs of these shapes, (batch size, *shape)."""
    inputs = [(str(shape), function.example(shape[0], shape[1:])) for shape in shapes]
    return compare(function, run, inputs, precision)


def change_weights(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.05)


def check_restating(path: str | Path, batch: torch.Tensor) -> None:
    """See that a file that gets other meta data has them, and computes as before."""
    before = load(path, threads=1)
    expected = before(batch.numpy())
    said = dict(before.metadata, comparison=dict(names=['<a & "b">', 'ü\n'], largest=0.25))
    find_format(path).restate(Path(path), said)
    after = load(path, threads=1)
    assert after.metadata == said
    actual = after(batch.numpy())
    assert actual.keys() == expected.keys()
    for name, values in actual.items():
        np.testing.assert_array_equal(values, expected[name])


def blocks_of(page: str, language: str) -> list[str]:
    text = (ROOT / 'docs' / page).read_text(encoding='utf-8')
    return re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)


def environment_without_torch(folder: Path) -> Path:
    """A Python that has NumPy, Pillow and ONNX Runtime, and neither torch nor OpenMMLab."""
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True, timeout=300)
    python = folder / 'bin' / 'python'
    subprocess.run(
        [python, '-m', 'pip', 'install', '--quiet', 'numpy', 'pillow', 'onnxruntime'],
        check=True,
        timeout=400,
    )
    modules = 'torch', 'mmengine', 'mmdet', 'mmpretrain', 'unireplknet_mm'
    find = f'import importlib.util as u; print([m for m in {modules} if u.find_spec(m)])'
    # -I: as PYTHONPATH is not part of the environment.
    found = subprocess.run([python, '-I', '-c', find], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == '[]'
    return python
