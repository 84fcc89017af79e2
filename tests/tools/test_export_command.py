"""tools/export.py as a user calls it: on photographs of his own, on demo data, with mistakes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import randomise
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from tool_runs import CONFIGS

from unireplknet_mm import launch
from unireplknet_mm.export import FORMATS, load
from unireplknet_mm.export.backbone import MAP
from unireplknet_mm.export.formats.base import damaged
from unireplknet_mm.export.formats.onnx import Onnx
from unireplknet_mm.launch import exporting

for package in ('onnx', 'onnxruntime'):
    pytest.importorskip(package, reason=f'no {package} package')
onnxscript = pytest.importorskip('onnxscript', reason='no onnxscript package')

CONFIG = CONFIGS / 'cls_small.py'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    model = randomise(MODELS.build(cfg.model))
    path = tmp_path_factory.mktemp('weights') / 'classifier.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=3)), path)
    return path


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'photos'
    folder.mkdir()
    for number, name in enumerate(('astronaut', 'coffee', 'rocket')):
        data = pytest.importorskip('skimage.data', reason='no scikit-image')
        Image.fromarray(np.asarray(getattr(data, name)())[number:, ::2]).save(
            folder / f'{name}.png'
        )
    (folder / 'broken.png').write_bytes(b'\x89PNG no picture')
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def test_a_classifier_becomes_a_file_that_says_what_it_is(call, checkpoint, photos):
    printed = call(
        *('export', CONFIG, checkpoint, '--format', 'onnx', '--dynamic', 'batch'),
        *('--images', photos, '--out', 'out/model.onnx'),
    )
    first, wrote, times = printed.splitlines()
    assert first.startswith('scores: differs by ') and 'TOO MUCH' not in first
    assert wrote.startswith('Wrote out/model.onnx (') and 'compared on 3 inputs' in wrote
    assert 'recording and writing' in times
    assert files(Path('out')) == {'model.onnx'}
    metadata = load('out/model.onnx').metadata
    assert metadata['config'] == 'cls_small.py' and metadata['epoch'] == 3
    assert metadata['input']['shape'] == [None, 3, 224, 224]
    resize, crop = metadata['test_pipeline'][1:-1]
    assert (resize['type'], resize['scale'], resize['edge']) == ('ResizeEdge', 256, 'short')
    assert crop == dict(type='CenterCrop', crop_size=224)
    assert metadata['versions']['torch'] == str(torch.__version__)
    assert metadata['versions']['onnxscript'] == onnxscript.__version__
    assert metadata['parameters'] > 10_000
    comparison = metadata['comparison']
    assert comparison['inputs'] == 3 and comparison['agrees'] and 'detections' not in comparison
    largest = comparison['largest_differences']['scores']
    assert f'{largest:.1e}' in first and largest < comparison['allowed']['scores']


def test_a_pipeline_may_compute_in_floats(call, checkpoint, photos, tmp_path):
    config = tmp_path / 'floats.py'
    config.write_text(
        f'_base_ = {str(CONFIG)!r}\n'
        'test_dataloader = dict(dataset=dict(pipeline=[\n'
        '    dict(type="LoadImageFromFile", to_float32=True),\n'
        '    dict(type="Resize", scale=(32, 32), interpolation="bicubic"),\n'
        '    dict(type="PackInputs"),\n'
        ']))\n'
    )
    printed = call(
        *('export', config, checkpoint, '--format', 'torch-export', '--images', photos),
        *('--out', 'model.pt2'),
    )
    assert 'TOO MUCH' not in printed
    assert load('model.pt2').metadata['input']['dtype'] == 'uint8'


@pytest.mark.parametrize('changes', [[], ['--cfg-options', *MAP.split()]], ids=['mean', 'map'])
def test_the_backbone_of_a_classifier_says_what_it_gives(call, checkpoint, photos, changes):
    call(
        *('export', CONFIG, checkpoint, '--format', 'torch-export', '--images', photos),
        *('--backbone', '--input-size', 64, 96, '--out', 'model.pt2', *changes),
    )
    run = load('model.pt2')
    features = run(np.zeros((1, 3, 64, 96), dtype=np.uint8))['stage3']
    said = run.metadata['outputs']['stage3']
    assert features.shape == ((1, 32, 2, 3) if changes else (1, 32))
    assert said.startswith('(N, channels, height, width)' if changes else '(N, channels), the mean')
    if changes:  # normalised as it is, since the trained norm is that of the mean
        np.testing.assert_allclose(features.mean(1), 0, atol=1e-4)
        np.testing.assert_allclose(features.std(1), 1, atol=1e-2)


@pytest.fixture
def untested(tmp_path) -> Path:
    """A config as those of ImageNet-22K, which has neither test data nor metrics."""
    path = tmp_path / 'untested.py'
    path.write_text(f'_base_ = {str(CONFIG)!r}\ntest_dataloader = None\ntest_evaluator = None\n')
    return path


@pytest.mark.parametrize('count', [3, 2])  # of photographs, or of demo data
def test_a_config_that_is_never_tested_takes_what_it_crops_to(
    call, checkpoint, photos, untested, count
):
    printed = call(
        *('export', untested, checkpoint, '--format', 'torch-export', '--out', 'model.pt2'),
        *(('--images', photos) if count == 3 else ()),
    )
    assert f'compared on {count} inputs' in printed
    assert load('model.pt2').metadata['input']['shape'] == [1, 3, 32, 32]


def test_a_config_without_metrics_has_no_scores(call, checkpoint, untested):
    said = call(
        *('export', untested, checkpoint, '--format', 'torch-export', '--out', 'model.pt2'),
        '--score',
        status=1,
    )
    assert 'has no test_evaluator or no test_cfg: leave it out.' in said
    assert not os.path.exists('model.pt2')


def test_an_interruption_leaves_nothing(call, checkpoint, photos, monkeypatch):
    def interrupt(self, path, threads=None):
        assert path.is_file()
        raise KeyboardInterrupt

    Path('out').mkdir()
    Path('out/model.onnx').write_text('an earlier one')
    monkeypatch.setattr(Onnx, 'load', interrupt)
    said = call(
        *('export', CONFIG, checkpoint, '--format', 'onnx', '--out', 'out/model.onnx'),
        *('--images', photos, '--input-size', 64, 64),
        status=130,
    )
    assert said.endswith('Interrupted: nothing was written.\n')
    assert Path('out/model.onnx').read_text() == 'an earlier one'
    assert files(Path('out')) == {'model.onnx'}


def test_a_file_that_disagrees_is_not_written_unless_told(call, checkpoint, photos, monkeypatch):
    def write_other_weights(self, deployable, *arguments):
        randomise(deployable.model, seed=1)
        return write(self, deployable, *arguments)

    write = Onnx.write
    monkeypatch.setattr(Onnx, 'write', write_other_weights)
    arguments = (
        *('export', CONFIG, checkpoint, '--format', 'onnx', '--out', 'out/model.onnx'),
        *('--images', photos, '--input-size', 64, 64),
    )
    message = call(*arguments, status=1)
    assert 'TOO MUCH' in message and '--force writes it' in message
    assert files(Path('out')) == set()
    assert 'TOO MUCH' in call(*arguments, '--force')
    assert files(Path('out')) == {'model.onnx'}
    assert not load('out/model.onnx').metadata['comparison']['agrees']


def test_a_file_that_its_runtime_cannot_run_is_no_damaged_one(
    call, checkpoint, photos, monkeypatch
):
    def fail(self, path, threads=None):
        raise damaged(path, 'shapes of a node do not fit') from RuntimeError('shapes do not fit')

    monkeypatch.setattr(Onnx, 'load', fail)
    said = call(
        *('export', CONFIG, checkpoint, '--format', 'onnx', '--precision', 'fp16'),
        *('--images', photos, '--input-size', 64, 64, '--out', 'model.onnx'),
        status=1,
    )
    assert 'error: onnx does not run the model in fp16: shapes do not fit\nChoose another' in said
    assert not os.path.exists('model.onnx')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--format', 'onnx', '--out', 'model.pt2'), 'ends with .onnx'),
        (('--format', 'torch-export', '--out', 'm.aoti.pt2'), 'ends with .pt2, not .aoti.pt2.'),
        (('--format', 'onnx', '--out', 'm.onnx', '--precision', 'bf16'), 'it has fp32, fp16'),
        (('--format', 'onnx', '--out', 'm.onnx', '--images', 'nowhere'), 'nowhere does not exist'),
        (('--format', 'onnx', '--out', 'photos', '--images', 'photos'), 'ends with .onnx'),
    ],
)
def test_mistakes_are_said_in_two_lines(call, checkpoint, arguments, message):
    before = files(Path())
    said = call('export', CONFIG, checkpoint, *arguments, status=1)
    error = said[said.index('error: ') :]
    assert message in error
    assert len(error.strip().splitlines()) <= 2
    assert files(Path()) == before


def test_a_detector_is_scored_as_often_as_one_likes():
    """The visualizer of mmdet's configs has a name, and is that of the process."""
    cfg = launch.load_config(CONFIGS / 'det_small.py')
    launch.prepare_device(cfg, 'none', 'cpu')
    launch.use_demo_data(cfg, None)
    init_default_scope(cfg.default_scope)
    model = randomise(MODELS.build(cfg.model)).eval()
    scores = exporting.score(cfg, model)
    assert 'coco/bbox_mAP' in scores
    assert exporting.score(cfg, model) == scores


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (['--logits'], '--logits is for segmenters, not for image classification.'),
        (['--letterbox', 64, 64], 'test_pipeline of the config does, or leave their size open'),
        (['--paste-masks'], '--paste-masks is for detectors with masks, not for image'),
        (['--backbone', '--letterbox', 64, 64], 'for detectors, not for backbone features.'),
    ],
)
def test_options_of_other_tasks_are_refused(call, checkpoint, photos, option, message):
    said = call(
        *('export', CONFIG, checkpoint, '--format', 'onnx', *option, '--out', 'model.onnx'),
        *('--images', photos),
        status=1,
    )
    error = said[said.index('error: ') :]
    assert message in error
    assert len(error.strip().splitlines()) <= 2
    assert not os.path.exists('model.onnx')


@pytest.fixture
def points(tmp_path) -> Path:
    """The checkpoint of a small classifier of point clouds."""
    pytest.importorskip('h5py', reason='no h5py, which the configs of point clouds import')
    cfg = launch.load_config(CONFIGS / 'point_cloud_small.py')
    init_default_scope(cfg.default_scope)
    path = tmp_path / 'points.pth'
    torch.save(dict(state_dict=randomise(MODELS.build(cfg.model)).state_dict()), path)
    return path


def test_int8_is_measured_on_one_view_of_a_sample(call, points):
    for package in ('openvino', 'nncf'):
        pytest.importorskip(package, reason=f'no {package} package')
    printed = call(
        *('export', CONFIGS / 'point_cloud_small.py', points, '--demo-data'),
        *('--format', 'openvino', '--precision', 'int8', '--force', '--out', 'model.xml'),
    )
    assert 'compared on 2 inputs' in printed
    assert load('model.xml').metadata['input']['shape'] == [1, 64, 3]


def test_no_size_is_advised_for_what_has_none(call, points):
    said = call(
        *('export', CONFIGS / 'point_cloud_small.py', points, '--demo-data'),
        *('--format', 'torch-export', '--letterbox', 64, 64, '--out', 'model.pt2'),
        status=1,
    )
    assert '--letterbox is for detectors, not for classification of samples.' in said
    assert '--dynamic size' not in said


def test_what_cannot_be_read_is_said(call, checkpoint, photos):
    said = call(
        *('export', CONFIG, checkpoint, '--format', 'torch-export', '--out', 'model.pt2'),
        *('--images', photos / 'broken.png'),
        status=1,
    )
    assert 'Files left out, since they cannot be read: 1.\n' in said
    assert f'{photos / "broken.png"}: ' in said
    assert 'no input could be read' in said


def test_int8_is_compared_where_few_files_can_be_read(call, checkpoint, photos):
    """Ranges are then measured on the same pictures."""
    for package in ('openvino', 'nncf'):
        pytest.importorskip(package, reason=f'no {package} package')
    for number in range(exporting.CALIBRATION_INPUTS + 5):
        (photos / f'a{number}.png').write_bytes(b'\x89PNG no picture')
    printed = call(
        *('export', CONFIG, checkpoint, '--format', 'openvino', '--precision', 'int8', '--force'),
        *('--images', photos, '--count', 2, '--input-size', 64, 64, '--out', 'model.xml'),
    )
    assert 'compared on 2 inputs' in printed


def test_a_missing_runtime_names_the_extra(call, checkpoint, monkeypatch):
    monkeypatch.setattr(type(FORMATS['openvino']), 'packages', ('no_such_runtime',))
    said = call(
        *('export', CONFIG, checkpoint, '--format', 'openvino', '--out', 'model.xml'), status=1
    )
    assert "pip install 'unireplknet-mm[openvino]'" in said
    assert not os.path.exists('model.xml')
