"""What the wheel carries beside the code, and where MIM finds it; `make test-mim` runs MIM itself."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from helpers import read_tree

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> Path:
    """What a wheel is packed from, but for its dist-info."""
    folder = tmp_path_factory.mktemp('built')
    command = [sys.executable, 'setup.py', '--quiet', 'build_py', '--build-lib', str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture
def packaging(monkeypatch) -> tuple[dict, dict]:
    """The names in setup.py, and the arguments of its setup()."""
    arguments = {}
    monkeypatch.setattr(setuptools, 'setup', arguments.update)
    return runpy.run_path(str(ROOT / 'setup.py')), arguments


def sources(folder: Path) -> dict[str, bytes]:
    return {name: text for name, text in read_tree(folder).items() if '__pycache__' not in name}


def test_configs_tools_and_index_are_carried(built):
    for folder in ('unireplknet_mm', 'unireplknet_mim'):
        carried = built / folder / '.mim'
        assert sorted(path.name for path in carried.iterdir()) == [
            'configs',
            'model-index.yml',
            'tools',
        ]
        for name in ('configs', 'tools'):
            assert read_tree(carried / name) == sources(ROOT / name), name
    assert {path.name for path in built.iterdir()} == {'unireplknet_mm', 'unireplknet_mim'}


def test_onedl_mim_finds_the_root(built, packaging):
    """It takes the folder of the first file in RECORD, which installers sort; scripts begin with `../`."""
    version = packaging[1]['version']
    listed = sorted([*read_tree(built), f'unireplknet_mm-{version}.dist-info/METADATA'])
    root = built / listed[0].split('/')[0]
    assert (root / '.mim' / 'tools' / 'train.py').is_file()
    assert not {'entry_points', 'scripts', 'data_files'} & packaging[1].keys()


def test_an_editable_install_links_them(packaging, tmp_path):
    link_carried = packaging[0]['link_carried']
    for _ in range(2):
        link_carried(tmp_path / '.mim')
    assert {path.name: os.readlink(path) for path in (tmp_path / '.mim').iterdir()} == {
        name: os.path.join('..', '..', name) for name in ('configs', 'tools', 'model-index.yml')
    }


def test_where_links_are_not_allowed_an_editable_install_goes_on(packaging, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError('a required privilege is not held by the client')

    monkeypatch.setattr(Path, 'symlink_to', refuse)
    with pytest.warns(UserWarning, match='give mim the path of a config'):
        packaging[0]['link_carried'](tmp_path / '.mim')
    assert list((tmp_path / '.mim').iterdir()) == []
