"""Published weights by name, wherever a checkpoint is asked for."""

import ast
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from helpers import load_config
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

from unireplknet_mm import launch
from unireplknet_mm.configuration import find_pretrained
from unireplknet_mm.errors import UserError
from unireplknet_mm.weights import hub, published
from unireplknet_mm.weights.reading import (
    MissingCheckpointError,
    check_address,
    load_checkpoint,
    open_checkpoint,
    read_meta,
)

CONFIGS = Path(__file__).parents[2] / 'configs'
NAME = 'unireplknet_a_in1k'


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A stand-in for the page of the published weights, with one file on it, and an empty cache.

    The package of the hub, which would be asked first, is not there.
    """
    monkeypatch.setattr(hub, 'is_installed', lambda: False)
    folder = tmp_path / 'site' / 'resolve' / 'main'
    folder.mkdir(parents=True)
    checkpoint = dict(state_dict=dict(x=torch.arange(3.0)), meta=dict(seed=5))
    torch.save(checkpoint, folder / published.PUBLISHED[NAME].file_name)
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / 'site')

        def log_message(self, *args):
            requests.append(self.path)

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(published, 'WEIGHTS_PAGE', f'http://127.0.0.1:{server.server_port}')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.chdir(tmp_path)
    yield requests
    server.shutdown()
    server.server_close()


def test_a_name_is_downloaded_once(site):
    for _ in range(2):
        assert load_checkpoint(NAME)['state_dict']['x'].tolist() == [0, 1, 2]
        assert CheckpointLoader.load_checkpoint(NAME)['meta'] == read_meta(NAME) == dict(seed=5)
    assert len(site) == 1


def test_a_file_of_that_name_comes_first(site, tmp_path):
    torch.save(dict(meta=dict(seed=6)), tmp_path / NAME)
    assert read_meta(NAME) == dict(seed=6)
    assert site == []


def test_a_name_passes_the_checks_before_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=NAME)))
    launch.check_pretrained(Config(dict(model=model, load_from='upernet_unireplknet_t_in1k')))
    launch.check_checkpoint('cascade_unireplknet_xl_in22k')


def test_a_misspelt_name_is_answered_with_those_it_resembles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingCheckpointError) as error:
        load_checkpoint('unireplknet_s_in22')
    assert str(error.value) == (
        'checkpoint unireplknet_s_in22 does not exist; published are unireplknet_s_in22k, '
        'unireplknet_l_in22k, unireplknet_b_in22k'
    )


@pytest.mark.parametrize(
    ('source', 'answer'),
    [
        ('torchvision://resnet5', r"knows no 'resnet5' of torchvision://; close are .*resnet50"),
        ('modelzoo://x', "knows no 'x' of modelzoo://. Correct the name"),
        ('open-mmlab://resnet50_cafe', r'close are .*resnet50_caffe'),
        ('openmmlab://x', "knows no 'x' of openmmlab://"),
        ('mmcls://resnet5', r'close are .*resnet50'),
        ('', "checkpoint '' names no file"),
        ('hf-hub:owner/name', 'a file on the hub is written hf://owner/name/FILE'),
    ],
)
@pytest.mark.parametrize(
    'load', [load_checkpoint, open_checkpoint, CheckpointLoader.load_checkpoint]
)
def test_names_that_nothing_knows_are_answered_in_a_line(
    tmp_path, monkeypatch, load, source, answer
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=answer) as error:
        load(source)
    assert '\n' not in str(error.value)


def test_names_that_a_zoo_knows_pass():
    for name in (
        'torchvision://resnet50',
        'open-mmlab://detectron2/resnet50_caffe',
        'mmcls://vgg11',
    ):
        check_address(name)


def test_every_name_in_a_config_is_published():
    files = [file for file in CONFIGS.glob('*/*.py') if '_base_' not in file.parts]
    names = {name for file in files for name in find_pretrained(load_config(file).get('model'))}
    own = {name for name in names if name.startswith('work_dirs/')}
    assert len(names - own) >= 8
    assert names - own <= published.PUBLISHED.keys()
    # What another config leaves.
    assert own and {Path(name).parent.name for name in own} <= {file.stem for file in files}


def test_the_address_stands_in_one_place():
    root = CONFIGS.parent
    found = [
        str(file.relative_to(root))
        for folder in ('unireplknet_mm', 'configs', 'tools')
        for file in sorted((root / folder).rglob('*.py'))
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8')))
        if isinstance(node, ast.Constant) and 'DingXiaoH/UniRepLKNet' in str(node.value)
    ]
    assert found == ['unireplknet_mm/weights/published.py']
