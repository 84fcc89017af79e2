"""Where the tools get checkpoints from, and how often they read them."""

import shutil

import pytest
import torch
from helpers import cached_name, fill_hub_cache
from tool_runs import CONFIGS, read_scores

from unireplknet_mm.weights.published import PUBLISHED, REPOSITORY, PublishedWeights

CONFIG = CONFIGS / 'two_encoders.py'
EPOCHS = ('--cfg-options', 'train_cfg.max_epochs=2')


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """The file of a training of one epoch; made by the first test that asks."""
    return tmp_path_factory.mktemp('finished') / 'epoch_1.pth'


@pytest.fixture
def trained(finished, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if not finished.exists():
        call('train', CONFIG, '--work-dir', finished.parent, '--seed', '5')
    return finished


@pytest.fixture
def url(trained, web_server, monkeypatch, tmp_path):
    """Its address, and the list of what was asked for."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    folder, address, asked = web_server
    shutil.copy(trained, folder / 'trained.pth')
    return f'{address}/trained.pth', asked


@pytest.fixture
def readings(monkeypatch):
    """The files that were read, each time, but for readings that leave the tensors on the disk."""
    noted = []
    load = torch.load

    def note(path, *args, mmap=None, **kwargs):
        if not mmap:
            noted.append(path.name)
        return load(path, *args, mmap=mmap, **kwargs)

    monkeypatch.setattr(torch, 'load', note)
    return noted


def test_training_resumes_from_a_url(call, url, readings, tmp_path):
    address, asked = url
    output = call('train', CONFIG, '--work-dir', 'work', '--resume', address, *EPOCHS)
    assert 'resumed epoch: 1, iter: 2' in output
    assert len(asked) == 1
    assert readings == [cached_name(address)]
    meta = torch.load(tmp_path / 'work' / 'epoch_2.pth', weights_only=False)['meta']
    assert meta['epoch'] == 2
    assert meta['seed'] == 5, 'the seed is that of the resumed training'


def test_a_url_is_tested_like_the_file(call, url, trained, tmp_path):
    address, asked = url
    scores = []
    for checkpoint in (trained, address):
        call('test', CONFIG, checkpoint, '--work-dir', 'work')
        scores.append(read_scores(tmp_path / 'work')['logit_norm'])
    assert len(asked) == 1
    assert scores[0] == scores[1] > 0


@pytest.mark.parametrize('address', ['hf://me/net/epoch_1.pth', 'two_encoders_in1k'])
def test_a_file_of_the_hub_is_taken_by_every_tool(
    call, trained, hub_cache, tmp_path, monkeypatch, address
):
    """By its address, or a name of the catalogue."""
    weights = PublishedWeights(trained.name, 'a', 'ImageNet-1K', '32')
    monkeypatch.setitem(PUBLISHED, 'two_encoders_in1k', weights)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    fill_hub_cache(hub_cache, 'me/net' if '://' in address else REPOSITORY, trained)
    output = call('train', CONFIG, '--work-dir', 'work', '--resume', address, *EPOCHS)
    assert 'resumed epoch: 1, iter: 2' in output
    load_from = ('--cfg-options', f'load_from={address}')
    assert f'Load checkpoint from {address}' in call(
        'train', CONFIG, '--work-dir', 'work', *load_from
    )
    scores = []
    for checkpoint in (trained, address):
        call('test', CONFIG, checkpoint, '--work-dir', 'work')
        scores.append(read_scores(tmp_path / 'work')['logit_norm'])
    assert scores[0] == scores[1] > 0
    call('reparameterize', CONFIG, address, 'out.pth')
    call('publish', CONFIG, address, 'to_publish')
    error = call('test', CONFIG, 'hf://me/net/nothing.pth', '--work-dir', 'work', status=1)
    assert error.endswith(
        f'hf://me/net/nothing.pth is not in the cache ({hub_cache}), and HF_HUB_OFFLINE forbids to fetch '
        'it: unset it, or download the file elsewhere and give its path\n'
    )


def test_a_url_is_reparameterized_like_the_file(call, url, trained):
    address, asked = url
    for checkpoint, out in ((trained, 'of_file.pth'), (address, 'of_url.pth')):
        output = call('reparameterize', CONFIG, checkpoint, out)
        assert output.endswith(f'(relative) from those of {checkpoint}.\n')
    assert len(asked) == 1
    expected, actual = (torch.load(out)['state_dict'] for out in ('of_file.pth', 'of_url.pth'))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ('tool', 'arguments'),
    [
        ('train', ['--work-dir', 'work', '--resume', 'URL']),
        ('train', ['--work-dir', 'work', '--cfg-options', 'load_from=URL']),
        ('test', ['URL', '--work-dir', 'work']),
        ('reparameterize', ['URL', 'out.pth']),
    ],
)
def test_a_url_that_is_not_there(call, url, tool, arguments, tmp_path):
    address = url[0].replace('trained', 'nothing')
    arguments = [argument.replace('URL', address) for argument in arguments]
    message = call(tool, CONFIG, *arguments, status=1).rpartition('error: ')[2]
    assert message == (
        f'cannot download {address} (HTTP Error 404: File not found). Download it elsewhere and give '
        f'the path of the file, or put it at {tmp_path}/cache/hub/checkpoints/'
        f'{cached_name(address)}\n'
    )
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize('options', [[], ['--deploy']])
def test_a_checkpoint_is_read_once_for_a_test(call, trained, readings, options):
    call('test', CONFIG, trained, '--work-dir', 'work', *options)
    assert readings == ['epoch_1.pth']


def test_a_checkpoint_is_read_once_to_be_folded(call, trained, readings):
    call('reparameterize', CONFIG, trained, 'deploy.pth')
    call('test', CONFIG, 'deploy.pth', '--work-dir', 'work')
    assert readings == ['epoch_1.pth', 'deploy.pth']
