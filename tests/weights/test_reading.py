"""Reading a checkpoint: what is read, what is refused and how to allow it, damage, downloads."""

import argparse
import collections
import errno
import importlib.util
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from helpers import SMALL_ARCH, assert_body_loaded, cached_name, randomise, save
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import load_checkpoint as mmengine_load_checkpoint
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models
from torch import nn

from unireplknet_mm.errors import MissingPackageError, UserError
from unireplknet_mm.launch import check_checkpoint
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.weights import PUBLISHED, CheckpointError, load_checkpoint_file, reading
from unireplknet_mm.weights.errors import DownloadError
from unireplknet_mm.weights.reading import load_checkpoint, read_meta


@contextmanager
def raises(kind: type[Exception], message: str) -> Iterator[None]:
    """The block raises a user's error, which is a `kind` as well, with this whole message."""
    with pytest.raises(kind) as info:
        yield
    assert isinstance(info.value, UserError)
    assert str(info.value) == message


def refusal(path: Path, names: str) -> str:
    return (
        f'checkpoint {path} is refused: to read it, {names} would have to run, and a crafted file can run '
        'any code that way.\n'
        'If you trust its source, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 and try again'
    )


def damage(path: Path) -> str:
    return f'checkpoint {path} is truncated or corrupt: get or write it again'


class RunsCode:
    def __reduce__(self):
        return (os.mkdir, (os.environ['UNIREPLKNET_TEST_DIRECTORY'],))


class LooksUpAnything:
    def __reduce__(self):
        return (getattr, (HistoryBuffer, '__init__'))


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
def test_reads_what_trainers_store_beside_tensors(tmp_path, zipped):
    counts = collections.defaultdict(list)
    counts['a'].append(1)
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    content = dict(
        model={'weight': torch.ones(2)},
        args=argparse.Namespace(lr=1e-3, input_size=(3, 224), score=np.float64(0.5)),
        ordered=collections.OrderedDict(a=1),
        counts=counts,
        milestones=collections.Counter([1, 1]),
        meta=ConfigDict(classes=('a',), nested=dict(x=1)),
        message_hub=dict(log_scalars=dict(loss=history), best=np.float32(2), flag=np.bool_(True)),
        palette=np.arange(6, dtype=np.uint8).reshape(2, 3),
        names=np.array(['a', 'bc']),
        dtype=torch.bfloat16,
        size=torch.Size([2]),
    )
    loaded = load_checkpoint_file(
        save(tmp_path / 'x.pth', content, _use_new_zipfile_serialization=zipped)
    )
    assert torch.equal(loaded['model']['weight'], torch.ones(2))
    assert loaded['args'] == content['args']
    assert loaded['counts'] == {'a': [1]}
    assert loaded['meta'].nested.x == 1
    assert loaded['message_hub']['log_scalars']['loss'].mean() == 2
    assert loaded['message_hub']['log_scalars']['loss'].statistics('max') == 3
    assert loaded['message_hub']['best'] == 2
    assert loaded['palette'].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded['names'].tolist() == ['a', 'bc']
    assert loaded['milestones'] == {1: 2}
    assert loaded['dtype'] is torch.bfloat16


def test_reads_numpy_values_that_another_numpy_release_wrote(tmp_path):
    path = save(tmp_path / 'x.pth', dict(a=np.float32(2), b=np.arange(3)))
    rewritten = tmp_path / 'y.pth'
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(rewritten, 'w') as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith('data.pkl'):
                here, there = b'numpy._core.multiarray', b'numpy.core.multiarray'
                if here not in content:
                    here, there = there, here
                assert here in content
                content = content.replace(here, there)
            new.writestr(name, content)
    loaded = load_checkpoint_file(rewritten)
    assert loaded['a'] == 2
    assert loaded['b'].tolist() == [0, 1, 2]


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
def test_a_file_that_runs_code_is_refused_and_the_message_says_how_to_allow_it(
    tmp_path, monkeypatch, zipped
):
    made_by_file = tmp_path / 'made'
    monkeypatch.setenv('UNIREPLKNET_TEST_DIRECTORY', str(made_by_file))
    path = save(tmp_path / 'x.pth', dict(a=RunsCode()), _use_new_zipfile_serialization=zipped)
    message = refusal(path, 'posix.mkdir')
    with raises(CheckpointError, message):
        load_checkpoint_file(path)
    with raises(CheckpointError, message):
        CheckpointLoader.load_checkpoint(str(path))
    assert not made_by_file.exists()

    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    assert load_checkpoint_file(path) == dict(a=None)
    assert made_by_file.is_dir()


def test_getattr_is_allowed_for_the_statistics_of_a_history_buffer_only(tmp_path):
    path = tmp_path / 'x.pth'
    with raises(CheckpointError, refusal(path, 'builtins.getattr')):
        load_checkpoint_file(save(path, dict(a=LooksUpAnything())))
    with raises(CheckpointError, refusal(path, 'torch.nn.modules.linear.Linear')):
        load_checkpoint_file(save(path, nn.Linear(2, 2)))


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
def test_a_truncated_file_is_named_as_such_wherever_it_ends(tmp_path, zipped):
    content = {f'a{i}': torch.rand(3, 3) for i in range(3)} | dict(epoch=1)
    path = save(tmp_path / 'x.pth', content, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in [*range(16, len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as info:
            load_checkpoint_file(path)
        # The old format may end within the name of a class, which then is an unknown one.
        unknown = re.escape(refusal(path, 'NAME')).replace('NAME', r'[\w.]+')
        expected = re.escape(damage(path)) + ('' if zipped else f'|{unknown}')
        assert re.fullmatch(expected, str(info.value)), length


def test_a_truncated_file_of_many_tensors(tmp_path):
    """Cut to some lengths, torch seeks to a place before the beginning of the archive."""
    path = save(tmp_path / 'x.pth', UniRepLKNet('a').state_dict())
    whole = path.read_bytes()
    for length in [*range(1000, 100_000, 3001), *range(100_000, len(whole), 1_500_017)]:
        path.write_bytes(whole[:length])
        with raises(CheckpointError, damage(path)):
            load_checkpoint_file(path)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
def test_a_corrupt_byte_never_gives_another_error(tmp_path, zipped):
    """What is changed within a tensor's numbers cannot be noticed."""
    content = {f'a{i}': torch.rand(3, 3) for i in range(3)} | dict(epoch=1)
    path = save(tmp_path / 'x.pth', content, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    noticed = 0
    for _ in range(150):
        corrupt = bytearray(whole)
        corrupt[generator.integers(4, len(whole))] ^= int(generator.integers(1, 256))
        path.write_bytes(corrupt)
        try:
            load_checkpoint_file(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            noticed += 1
    assert noticed > 20


WENT_WRONG = '. A web page or a Git LFS pointer in its place means that the download went wrong'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'checkpoint {path} is empty: get or write it again'),
        (
            b'<!DOCTYPE html><html>',
            "{path} is not a checkpoint: it begins with b'<!DOCTYPE html><'" + WENT_WRONG,
        ),
        (
            b'version https://git-lfs.github.com/spec/v1\n',
            "{path} is not a checkpoint: it begins with b'version https://'" + WENT_WRONG,
        ),
        (
            b'\x80\x02' + bytes(range(256)),
            'checkpoint {path} is truncated or corrupt: get or write it again',
        ),
    ],
)
def test_what_is_no_checkpoint_is_named_as_such(tmp_path, content, message):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with raises(CheckpointError, message.format(path=path)):
        load_checkpoint_file(path)


def test_other_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / 'x.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', 'b')
    with raises(
        CheckpointError, f'checkpoint {path} is a zip archive, but not one that torch.save wrote'
    ):
        load_checkpoint_file(path)
    with raises(
        CheckpointError,
        f'{path} holds a Tensor, not a checkpoint: save a model with torch.save(model.state_dict(), path)',
    ):
        load_checkpoint_file(save(path, torch.ones(2)))
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with raises(
        CheckpointError,
        f'checkpoint {path} is a TorchScript archive: load it with torch.jit.load, or use its state dict',
    ):
        load_checkpoint_file(path)


def test_a_missing_file_or_a_directory_is_named_with_a_way_out(tmp_path):
    with raises(FileNotFoundError, f'checkpoint {tmp_path}/nothing.pth does not exist'):
        load_checkpoint_file(tmp_path / 'nothing.pth')
    with raises(IsADirectoryError, f'checkpoint {tmp_path} is a directory, and holds no *.pth'):
        load_checkpoint_file(tmp_path)
    save(tmp_path / 'epoch_1.pth', {})
    with raises(
        IsADirectoryError,
        f'checkpoint {tmp_path} is a directory: name a file in it, such as epoch_1.pth',
    ):
        load_checkpoint_file(tmp_path)
    weights = PUBLISHED['unireplknet_t_in1k']
    with raises(
        FileNotFoundError,
        f'checkpoint {tmp_path}/{weights.file_name} does not exist: download it from {weights.url}, or '
        'write unireplknet_t_in1k in its place',
    ):
        load_checkpoint_file(tmp_path / weights.file_name)


def test_a_file_that_must_not_be_read(tmp_path, monkeypatch):
    path = save(tmp_path / 'x.pth', {})

    def refuse(path, *args):
        raise PermissionError(errno.EACCES, 'Permission denied')

    monkeypatch.setattr(Path, 'open', refuse)  # nothing is forbidden to root
    with raises(CheckpointError, f'checkpoint {path} cannot be read: Permission denied'):
        load_checkpoint_file(path)


def test_a_reason_outside_the_file_is_passed_on(tmp_path):
    path = save(tmp_path / 'x.pth', dict(a=torch.ones(2)))
    with pytest.raises(RuntimeError, match='no such place'):
        load_checkpoint_file(path, map_location=raise_no_such_place)


def raise_no_such_place(storage, location):
    raise RuntimeError('no such place')


def test_downloads_are_read_safely_and_once(tmp_path, monkeypatch, web_server):
    folder, address, asked = web_server
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('UNIREPLKNET_TEST_DIRECTORY', str(tmp_path / 'made'))
    save(folder / 'good.pth', dict(a=torch.ones(2)))
    for _ in range(2):
        loaded = CheckpointLoader.load_checkpoint(f'{address}/good.pth?download=true')
        assert torch.equal(loaded['a'], torch.ones(2))
    assert len(asked) == 1

    cache = tmp_path / 'cache' / 'hub' / 'checkpoints'
    save(folder / 'bad.pth', dict(a=RunsCode()))
    bad = cache / cached_name(f'{address}/bad.pth')
    again = f'.\nTo download {address}/bad.pth again, delete {bad}'
    with raises(CheckpointError, refusal(bad, 'posix.mkdir') + again):
        CheckpointLoader.load_checkpoint(f'{address}/bad.pth')
    assert not (tmp_path / 'made').exists()

    (folder / 'page.pth').write_text('<html>')
    page = cache / cached_name(f'{address}/page.pth')
    with raises(
        CheckpointError,
        f"{page} is not a checkpoint: it begins with b'<html>'{WENT_WRONG}.\n"
        f'To download {address}/page.pth again, delete {page}',
    ):
        CheckpointLoader.load_checkpoint(f'{address}/page.pth')

    for place, reason in (
        (f'{address}/nothing.pth', 'HTTP Error 404: File not found'),
        ('http://127.0.0.1:1/nothing.pth', '<urlopen error [Errno 111] Connection refused>'),
    ):
        with raises(
            OSError,
            f'cannot download {place} ({reason}). Download it elsewhere and give the path of the file, or '
            f'put it at {cache}/{cached_name(place)}',
        ):
            CheckpointLoader.load_checkpoint(place)
    names = [
        cached_name(f'{address}/{name}')
        for name in ('bad.pth', 'good.pth?download=true', 'page.pth')
    ]
    assert sorted(path.name for path in cache.iterdir()) == sorted(names)


@pytest.mark.parametrize('local_rank', [0, 1])
def test_one_process_a_machine_downloads(tmp_path, monkeypatch, web_server, local_rank):
    folder, address, asked = web_server
    save(folder / 'x.pth', dict(a=torch.ones(2)))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    monkeypatch.setenv('LOCAL_RANK', str(local_rank))
    monkeypatch.setattr(reading, 'get_rank', lambda: 8 + local_rank)
    asked_before = []
    monkeypatch.setattr(reading, 'barrier', lambda: asked_before.extend(asked))
    load_checkpoint(f'{address}/x.pth')
    assert len(asked_before) == 1 - local_rank and len(asked) == 1


def test_files_of_one_name_from_two_urls(tmp_path, monkeypatch, web_server):
    folder, address, asked = web_server
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    for value in (1, 2):
        (folder / str(value)).mkdir()
        save(folder / str(value) / 'epoch_4.pth', dict(a=torch.tensor(value)))
    for value in (1, 2, 1, 2):
        loaded = CheckpointLoader.load_checkpoint(f'{address}/{value}/epoch_4.pth')
        assert loaded['a'].item() == value
    assert len(asked) == 2


def test_a_published_url_finds_what_was_put_into_the_cache_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    weights = PUBLISHED['unireplknet_a_in1k']
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    save(cache / weights.file_name, dict(a=torch.tensor(3)))
    for source in ('unireplknet_a_in1k', weights.url):
        assert load_checkpoint(source)['a'].item() == 3


@pytest.mark.parametrize('url', ['http://host', 'http://host/', 'https://host/models/?x.pth'])
def test_a_url_without_a_file_name_is_not_fetched(tmp_path, monkeypatch, url):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    message = f'{url} has no file name: give the whole URL of a checkpoint, to its .pth'
    for load in (CheckpointLoader.load_checkpoint, load_checkpoint, read_meta, check_checkpoint):
        with raises(CheckpointError, message):
            load(url)
    assert not list(tmp_path.iterdir())


def test_a_scheme_that_nothing_reads():
    message = (
        'checkpoint ftp://host/x.pth: nothing here reads ftp://. Download the file and give its path, or '
        'give a URL of http:// or https://'
    )
    for load in (CheckpointLoader.load_checkpoint, load_checkpoint, read_meta, check_checkpoint):
        with raises(CheckpointError, message):
            load('ftp://host/x.pth')


@pytest.mark.parametrize('address', ['s3://bucket/x.pth', 'cluster:s3://bucket/x.pth'])
def test_a_scheme_whose_package_is_missing(address):
    message = (
        f'checkpoint {address}: MMEngine reads s3:// with the package petrel_client, which is not '
        'installed. Install it, or download the file and give its path'
    )
    for load in (load_checkpoint, read_meta, check_checkpoint):
        with raises(ImportError, message):
            load(address)


def test_a_file_given_as_a_url(tmp_path):
    url = save(tmp_path / 'a file.pth', dict(meta=dict(seed=3))).as_uri()
    assert '%20' in url
    check_checkpoint(url)
    for load in (CheckpointLoader.load_checkpoint, load_checkpoint, load_checkpoint_file):
        assert load(url) == dict(meta=dict(seed=3))
    assert read_meta(url) == dict(seed=3)
    (tmp_path / 'a file.pth').unlink()
    for load in (load_checkpoint, check_checkpoint):
        with raises(Exception, f'checkpoint {tmp_path}/a file.pth does not exist'):
            load(url)


def test_the_meta_data_are_read_without_the_tensors(tmp_path, monkeypatch, web_server):
    folder, address, asked = web_server
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    save(folder / 'x.pth', dict(meta=dict(seed=3), state_dict=dict(a=torch.ones(2))))
    save(folder / 'raw.pth', dict(a=torch.ones(2)))
    mapped = []
    load = torch.load
    monkeypatch.setattr(
        torch, 'load', lambda *args, mmap, **kwargs: mapped.append(mmap) or load(*args, **kwargs)
    )
    for source in (folder / 'x.pth', f'{address}/x.pth'):
        assert read_meta(source) == dict(seed=3)
    assert read_meta(folder / 'raw.pth') == {}
    assert read_meta(save(folder / 'none.pth', dict(meta=None, a=torch.ones(2)))) == {}
    assert mapped == [True] * 4
    assert len(asked) == 1


def test_mmengine_load_checkpoint_also_reads_safely(tmp_path):
    model = UniRepLKNet(SMALL_ARCH)
    randomise(model)
    path = save(tmp_path / 'x.pth', dict(state_dict=model.state_dict()))
    again = UniRepLKNet(SMALL_ARCH)
    mmengine_load_checkpoint(again, str(path), strict=True)
    assert_body_loaded(again, model.state_dict())
    path.write_bytes(path.read_bytes()[:1000])
    with raises(CheckpointError, damage(path)):
        mmengine_load_checkpoint(again, str(path))


def test_safetensors(tmp_path, monkeypatch):
    safetensors = pytest.importorskip('safetensors.torch', reason='safetensors is not installed')
    path = tmp_path / 'x.safetensors'
    safetensors.save_file(dict(a=torch.arange(3.0)), path, metadata=dict(title='a'))
    for load in (load_checkpoint, load_checkpoint_file, CheckpointLoader.load_checkpoint):
        loaded = load(str(path))
        assert loaded['state_dict']['a'].tolist() == [0, 1, 2]
        assert loaded['meta'] == read_meta(path) == dict(title='a')
    assert load_checkpoint(path, 'meta')['state_dict']['a'].is_meta
    content = path.read_bytes()
    for damaged in (b'', content[:4], content[:-2], b'<html>' * 9):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match='no safetensors file, or a truncated or corrupt'):
            load_checkpoint_file(path)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(MissingPackageError, match='pip install safetensors'):
        load_checkpoint_file(path)


def test_a_page_is_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    url = 'https://drive.google.com/file/d/abc/view'
    message = f'{url} is a page to download from by hand: save its file and give the path of that'
    for load in (CheckpointLoader.load_checkpoint, load_checkpoint, read_meta, check_checkpoint):
        with raises(CheckpointError, message):
            load(url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['torchvision://resnet18', 'open-mmlab://vgg16_caffe'])
def test_weights_that_mmengine_names_are_not_reached(tmp_path, monkeypatch, name):
    scheme, _, model = name.partition('://')
    urls = get_torchvision_models() if scheme == 'torchvision' else get_external_models()
    url = urls[model]

    def refuse(*args, **kwargs):
        raise URLError('no route')

    monkeypatch.setattr(torch.hub, 'urlopen', refuse)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(DownloadError) as error:
        CheckpointLoader.load_checkpoint(name, 'cpu', logger='silent')
    cached = tmp_path / 'hub' / 'checkpoints' / url.rpartition('/')[2]
    assert str(error.value) == (
        f'cannot download {url} (<urlopen error no route>). Download it elsewhere and give the path of the '
        f'file, or put it at {cached}'
    )
    torch.save(dict(weight=torch.ones(2)), cached)
    assert CheckpointLoader.load_checkpoint(name, 'cpu', logger='silent')['weight'].sum() == 2
