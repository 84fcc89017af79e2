"""hf://OWNER/NAME[@REVISION]/FILE, from a stand-in for the hub's server and from a filled cache."""

import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, fill_hub_cache, save
from mmengine.config import Config
from mmengine.runner import CheckpointLoader

huggingface_hub = pytest.importorskip('huggingface_hub', reason='huggingface_hub is not installed')
from huggingface_hub import constants  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from unireplknet_mm import launch  # noqa: E402
from unireplknet_mm.errors import MissingPackageError  # noqa: E402
from unireplknet_mm.files import NoSpaceError  # noqa: E402
from unireplknet_mm.models import UniRepLKNet  # noqa: E402
from unireplknet_mm.weights import PUBLISHED, CheckpointError, hub  # noqa: E402
from unireplknet_mm.weights.errors import DownloadError  # noqa: E402
from unireplknet_mm.weights.hub import HubFile, parse_address  # noqa: E402
from unireplknet_mm.weights.published import REPOSITORY  # noqa: E402
from unireplknet_mm.weights.reading import load_checkpoint, read_meta  # noqa: E402

ROOT = Path(__file__).parents[2]
COMMIT = '1' * 40


class Site:
    """What the hub's server has: {(repository, revision, name): content}; and what it was asked for."""

    def __init__(self):
        self.files = {}
        self.refusals = {}  # repository -> (status, the hub's code of the error)
        self.downloads = []
        self.seconds = 0.0

    def put(self, name: str, path: Path, repository: str = 'me/net', revision: str = 'main'):
        self.files[repository, revision, name] = path.read_bytes()

    def refusal(self, repository: str, revision: str, name: str) -> tuple[int, str] | None:
        if repository in self.refusals:
            return self.refusals[repository]
        if all(key[0] != repository for key in self.files):
            return 401, 'RepoNotFound'
        if all(key[:2] != (repository, revision) for key in self.files):
            return 404, 'RevisionNotFound'
        if (repository, revision, name) not in self.files:
            return 404, 'EntryNotFound'
        return None


@pytest.fixture
def site(hub_cache, monkeypatch):
    """A stand-in for the hub's server, and an empty cache."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            repository, _, rest = self.path.lstrip('/').partition('/resolve/')
            revision, _, name = rest.partition('/')
            refusal = site.refusal(repository, revision, name)
            content = b'' if refusal else site.files[repository, revision, name]
            self.send_response(refusal[0] if refusal else 200)
            if refusal:
                self.send_header('X-Error-Code', refusal[1])
            else:
                self.send_header('ETag', f'"{repository}-{revision}-{name}"'.replace('/', '-'))
                self.send_header('X-Repo-Commit', COMMIT)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            return content

        do_HEAD = answer

        def do_GET(self):
            content = self.answer()
            if '/resolve/' in self.path:  # a newer client also asks who it works for
                site.downloads.append(self.path)
            time.sleep(site.seconds)
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site.address = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(constants, 'ENDPOINT', site.address)
    template = f'{site.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}'
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
    yield site
    server.shutdown()
    server.server_close()


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    content = dict(state_dict=dict(x=torch.arange(3.0)), meta=dict(seed=5))
    return save(tmp_path / 'x.pth', content)


@pytest.mark.parametrize(
    ('address', 'file'),
    [
        ('hf://me/net/x.pth', HubFile('me/net', 'x.pth')),
        ('hf://me/net@v1.0/x.pth', HubFile('me/net', 'x.pth', 'v1.0')),
        ('hf://me/net@a%2Fb/sub/x.pth', HubFile('me/net', 'sub/x.pth', 'a/b')),
        ('hf://me/net@refs/pr/3/x.pth', HubFile('me/net', 'x.pth', 'refs/pr/3')),
    ],
)
def test_addresses(address, file):
    assert parse_address(address) == file
    assert str(HubFile('me/net', 'x.pth', 'v1')) == 'hf://me/net@v1/x.pth'


@pytest.mark.parametrize(
    'address', ['hf://', 'hf://net/x.pth', 'hf://me/net', 'hf://me/net/', 'hf://datasets/me/net/x']
)
def test_what_is_no_address(address):
    for load in (load_checkpoint, CheckpointLoader.load_checkpoint, launch.check_checkpoint):
        with pytest.raises(CheckpointError, match='write hf://OWNER/NAME/FILE or'):
            load(address)


def test_a_file_is_fetched_once_and_found_offline(site, checkpoint, monkeypatch):
    site.put('x.pth', checkpoint)
    site.put('sub/x.pth', checkpoint, revision='v2')
    for address in ('hf://me/net/x.pth', 'hf://me/net@v2/sub/x.pth'):
        launch.check_checkpoint(address)
        assert load_checkpoint(address)['state_dict']['x'].tolist() == [0, 1, 2]
        assert CheckpointLoader.load_checkpoint(address)['meta'] == dict(seed=5)
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
        assert read_meta(address) == dict(seed=5)
        monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    assert site.downloads == ['/me/net/resolve/main/x.pth', '/me/net/resolve/v2/sub/x.pth']


def test_a_published_name_goes_through_the_hub(site, checkpoint, monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    weights = PUBLISHED['unireplknet_a_in1k']
    site.put(weights.file_name, checkpoint, repository=REPOSITORY)
    assert load_checkpoint('unireplknet_a_in1k')['meta'] == dict(seed=5)
    monkeypatch.setattr(hub, 'download', None)  # the server is not asked again
    assert CheckpointLoader.load_checkpoint('unireplknet_a_in1k')['meta'] == dict(seed=5)
    assert read_meta('unireplknet_a_in1k') == dict(seed=5)
    assert site.downloads == [f'/{REPOSITORY}/resolve/main/{weights.file_name}']
    # What was put into torch's cache by hand comes first.
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    save(tmp_path / 'hub' / 'checkpoints' / weights.file_name, dict(meta=dict(seed=6)))
    assert read_meta('unireplknet_a_in1k') == dict(seed=6)


def test_one_process_downloads_and_the_others_wait(site, checkpoint):
    site.put('x.pth', checkpoint)
    site.seconds = 0.5
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(hub.download, [HubFile('me/net', 'x.pth')] * 4))
    assert len(paths) == len(site.downloads) == 1


def test_the_variables_of_the_hub_count(site, checkpoint, tmp_path):
    site.put('x.pth', checkpoint)
    code = (
        'from unireplknet_mm.weights.reading import read_meta\n'
        "print(read_meta('hf://me/net/x.pth'))"
    )
    cache = tmp_path / 'elsewhere'
    paths = os.pathsep.join([str(ROOT), str(ROOT / 'ops')])
    environment = {
        **os.environ,
        'PYTHONPATH': paths,
        'HF_ENDPOINT': site.address,
        'HF_HUB_CACHE': str(cache),
    }
    for more in ({}, dict(HF_HUB_OFFLINE='1', HF_ENDPOINT='http://127.0.0.1:1')):
        done = subprocess.run(
            [sys.executable, '-c', code],
            env=environment | more,
            capture_output=True,
            text=True,
        )
        assert done.stdout.strip() == "{'seed': 5}", done.stderr[-2000:]
    assert [path.name for path in cache.glob('models--*')] == ['models--me--net']


def test_a_cache_that_someone_filled(hub_cache, checkpoint):
    fill_hub_cache(hub_cache, 'me/net', checkpoint)
    fill_hub_cache(hub_cache, 'you/net', checkpoint, revision='v2')
    assert read_meta('hf://me/net/x.pth') == read_meta('hf://you/net@v2/x.pth') == dict(seed=5)
    with pytest.raises(DownloadError) as error:
        load_checkpoint('hf://you/net/x.pth')
    assert str(error.value) == (
        f'hf://you/net/x.pth is not in the cache ({hub_cache}), and HF_HUB_OFFLINE forbids to fetch it: '
        'unset it, or download the file elsewhere and give its path'
    )


def test_what_the_server_does_not_give(site, checkpoint):
    site.put('x.pth', checkpoint)
    site.refusals['me/gated'] = (403, 'GatedRepo')
    log_in = 'log in (hf auth login) or set HF_TOKEN'
    for address, message in {
        'hf://me/gated/x.pth': f'access to it is restricted. Ask for it on {site.address}/me/gated, then '
        f'{log_in}',
        'hf://me/nothing/x.pth': f'there is no such repository on {site.address}, or it is private. Check '
        f'the name; for a private one, {log_in}',
        'hf://me/net@v3/x.pth': 'the repository has no revision v3. See its branches and tags on '
        f'{site.address}/me/net',
        'hf://me/net/y.pth': 'the repository has no file y.pth. See '
        f'{site.address}/me/net/tree/main',
    }.items():
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(address)
        assert str(error.value) == f'{address}: {message}'
    assert site.downloads == []


def test_a_server_that_is_not_there(site, hub_cache, monkeypatch):
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)  # between the client's attempts
    template = 'http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:1')
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
    with pytest.raises(DownloadError) as error:
        load_checkpoint('hf://me/net/x.pth')
    first, second = str(error.value).splitlines()
    assert first.startswith(
        f'hf://me/net/x.pth is not in the cache ({hub_cache}), and http://127.0.0.1:1 does not give it '
        '(ConnectError: '
    )
    assert second == (
        'Check the connection, set HF_ENDPOINT to a mirror, or download the file elsewhere and give its '
        'path'
    )


def test_a_connection_that_breaks(site, checkpoint, monkeypatch):
    site.put('x.pth', checkpoint)

    def broken(*args, **kwargs):
        raise ConnectionResetError('Connection reset by peer\nmore')

    monkeypatch.setattr('huggingface_hub.file_download.http_get', broken)
    with pytest.raises(DownloadError) as error:
        load_checkpoint('hf://me/net/x.pth')
    assert str(error.value) == (
        'hf://me/net/x.pth cannot be downloaded (ConnectionResetError: Connection reset by peer). Try '
        'again, or download the file elsewhere and give its path'
    )


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(site, checkpoint, hub_cache, monkeypatch, number):
    site.put('x.pth', checkpoint)

    def no_room(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('huggingface_hub.file_download.http_get', no_room)
    with pytest.raises(NoSpaceError) as error:
        load_checkpoint('hf://me/net/x.pth')
    assert str(error.value).startswith(f'{hub_cache} cannot be written: ')
    assert str(error.value).endswith('or set HF_HUB_CACHE to a folder on another disk.')


def test_a_damaged_file_says_what_to_delete(site, checkpoint, tmp_path):
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:-100])
    site.put('x.pth', checkpoint)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint('hf://me/net/x.pth')
    first, second = str(error.value).splitlines()
    assert 'is truncated or corrupt: get or write it again' in first
    assert second.startswith('To download hf://me/net/x.pth again, delete ')
    checkpoint.write_bytes(whole)
    site.put('x.pth', checkpoint)
    Path(second.rpartition(' ')[2]).unlink()
    assert read_meta('hf://me/net/x.pth') == dict(seed=5)


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setattr(hub, 'is_installed', lambda: False)
    for load in (load_checkpoint, read_meta, launch.check_checkpoint):
        with pytest.raises(MissingPackageError, match='pip install huggingface_hub, or download'):
            load('hf://me/net/x.pth')


def test_a_backbone_from_safetensors_on_the_hub(site, tmp_path):
    trained = UniRepLKNet(SMALL_ARCH)
    save_file(trained.state_dict(), tmp_path / 'x.safetensors')
    site.put('x.safetensors', tmp_path / 'x.safetensors')
    init_cfg = dict(type='Pretrained', checkpoint='hf://me/net/x.safetensors')
    model = dict(backbone=dict(type='UniRepLKNet', arch=SMALL_ARCH, init_cfg=init_cfg))
    launch.check_pretrained(Config(dict(model=model)))
    backbone = UniRepLKNet(SMALL_ARCH, init_cfg=init_cfg)
    backbone.init_weights()
    for name, value in trained.state_dict().items():
        assert torch.equal(backbone.state_dict()[name], value), name
