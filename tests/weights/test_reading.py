"""Reading a checkpoint: what is read, what is refused and how to allow it, damage, downloads."""

import argparse
import collections
import os
import re
import zipfile

import numpy as np
import pytest
import torch
from helpers import SMALL_ARCH, assert_body_loaded, randomise, save
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.runner import load_checkpoint as mmengine_load_checkpoint
from torch import nn

from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.state_dict import extract_backbone_state_dict
from unireplknet_mm.weights import PUBLISHED, CheckpointError, load_checkpoint_file


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
    with pytest.raises(CheckpointError) as info:
        load_checkpoint_file(path)
    assert not made_by_file.exists()
    assert str(path) in str(info.value)
    assert '.mkdir' in str(info.value)
    assert 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1' in str(info.value)
    with pytest.raises(CheckpointError, match='refused'):
        CheckpointLoader.load_checkpoint(str(path))
    assert not made_by_file.exists()

    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    assert load_checkpoint_file(path) == dict(a=None)
    assert made_by_file.is_dir()


def test_getattr_is_allowed_for_the_statistics_of_a_history_buffer_only(tmp_path):
    with pytest.raises(CheckpointError, match=r'refused.*getattr'):
        load_checkpoint_file(save(tmp_path / 'x.pth', dict(a=LooksUpAnything())))
    with pytest.raises(CheckpointError, match=r'refused.*linear\.Linear'):
        load_checkpoint_file(save(tmp_path / 'x.pth', nn.Linear(2, 2)))


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
        expected = ' is truncated or corrupt' if zipped else ' is (truncated or corrupt|refused)'
        assert re.match(re.escape(f'checkpoint {path}') + expected, str(info.value)), length


def test_a_truncated_file_of_many_tensors(tmp_path):
    """Cut to some lengths, torch seeks to a place before the beginning of the archive."""
    path = save(tmp_path / 'x.pth', UniRepLKNet('a').state_dict())
    whole = path.read_bytes()
    for length in [*range(1000, 100_000, 3001), *range(100_000, len(whole), 1_500_017)]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match='is truncated or corrupt'):
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


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is empty'),
        (b'<!DOCTYPE html><html>', "begins with b'<!DOCTYPE html><'.*download went wrong"),
        (b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS'),
        (b'\x80\x02' + bytes(range(256)), 'truncated or corrupt'),
    ],
)
def test_what_is_no_checkpoint_is_named_as_such(tmp_path, content, message):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as info:
        load_checkpoint_file(path)
    assert str(path) in str(info.value)


def test_other_files_that_are_no_checkpoint(tmp_path):
    path = tmp_path / 'x.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.txt', 'b')
    with pytest.raises(CheckpointError, match=r'not one that torch.save wrote'):
        load_checkpoint_file(path)
    with pytest.raises(CheckpointError, match='holds a Tensor, not a checkpoint'):
        load_checkpoint_file(save(path, torch.ones(2)))
    with pytest.raises(CheckpointError, match='no weights in the checkpoint: it holds epoch, lr'):
        extract_backbone_state_dict(load_checkpoint_file(save(path, dict(epoch=1, lr=2))))


def test_a_missing_file_or_a_directory_is_named_with_a_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing.pth does not exist'):
        load_checkpoint_file(tmp_path / 'nothing.pth')
    with pytest.raises(IsADirectoryError, match='holds no'):
        load_checkpoint_file(tmp_path)
    save(tmp_path / 'epoch_1.pth', {})
    with pytest.raises(IsADirectoryError, match=r'such as epoch_1.pth'):
        load_checkpoint_file(tmp_path)
    weights = PUBLISHED['unireplknet_t_in1k']
    with pytest.raises(FileNotFoundError, match=f'download it from {weights.url}'):
        load_checkpoint_file(tmp_path / weights.file_name)


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

    save(folder / 'bad.pth', dict(a=RunsCode()))
    with pytest.raises(CheckpointError, match='refused'):
        CheckpointLoader.load_checkpoint(f'{address}/bad.pth')
    assert not (tmp_path / 'made').exists()

    (folder / 'page.pth').write_text('<html>')
    cached = tmp_path / 'cache' / 'hub' / 'checkpoints' / 'page.pth'
    with pytest.raises(CheckpointError, match=f'not a checkpoint[\\s\\S]*delete {cached}'):
        CheckpointLoader.load_checkpoint(f'{address}/page.pth')

    with pytest.raises(OSError, match=r'cannot download .*nothing.pth .*404'):
        CheckpointLoader.load_checkpoint(f'{address}/nothing.pth')
    with pytest.raises(OSError, match='cannot download'):
        CheckpointLoader.load_checkpoint('http://127.0.0.1:1/x.pth')


def test_mmengine_load_checkpoint_also_reads_safely(tmp_path):
    model = UniRepLKNet(SMALL_ARCH)
    randomise(model)
    path = save(tmp_path / 'x.pth', dict(state_dict=model.state_dict()))
    again = UniRepLKNet(SMALL_ARCH)
    mmengine_load_checkpoint(again, str(path), strict=True)
    assert_body_loaded(again, model.state_dict())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match='truncated'):
        mmengine_load_checkpoint(again, str(path))
