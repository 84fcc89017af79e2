"""A disk that fills up ends a tool with what would help, and leaves what was there before."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from helpers import cached_name
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tool_runs import CONFIGS

from unireplknet_mm.files import NoSpaceError
from unireplknet_mm.models.whole_model import switch_to_deploy
from unireplknet_mm.weights.reading import load_checkpoint

CONFIG = CONFIGS / 'cls_small.py'
CHECKPOINTS = (
    'default_hooks.checkpoint.max_keep_ckpts=1',
    'default_hooks.checkpoint.save_best=None',
)
NO_WORKERS = ('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False')
WAY_OUT = 'Make room there, or write to another disk.'


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A file system of 4 MB."""
    monkeypatch.chdir(tmp_path)
    disk = tmp_path / 'disk'
    disk.mkdir()
    command = ['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', str(disk)]
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip('no mount on this system')
    if result.returncode:
        pytest.skip(f'mounting a small file system is not permitted: {result.stderr.strip()}')
    yield disk
    subprocess.run(['umount', '--lazy', str(disk)], check=True)


def leave(disk: Path, free: int) -> None:
    """Fill the disk but for so many bytes, a multiple of the 4,096 of a block."""
    with (disk / 'filler').open('wb') as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - free)
    assert shutil.disk_usage(disk).free == free


def train(call, work_dir: Path, *arguments: str, status: int = 0) -> str:
    return call(
        *('train', CONFIG, '--demo-data', '--work-dir', work_dir, *arguments, '--cfg-options'),
        *('train_cfg.max_epochs=6', *CHECKPOINTS, *NO_WORKERS),
        status=status,
    )


def read_message(stderr: str, path: Path) -> tuple[float, float, str]:
    """What the message says: how many kB are needed, how many are free, and the line after that."""
    assert 'Traceback' not in stderr
    match = re.fullmatch(
        rf'error: {path} cannot be written: it needs (?:more than )?([\d.]+) ([kM])B, '
        r'([\d.]+) kB are free on its disk\.\n(.*)\n',
        stderr[stderr.index('error: ') :],
    )
    size, unit, free, way_out = match.groups()
    return float(size) * dict(k=1, M=1000)[unit], float(free), way_out


def test_training_says_what_it_needs_and_goes_on(call, small_disk):
    """A checkpoint has 1.3 MB."""
    work_dir = small_disk / 'run'
    leave(small_disk, 2048000)
    stderr = train(call, work_dir, status=1)
    size, free, way_out = read_message(stderr, work_dir / 'epoch_2.pth')
    assert size == pytest.approx((work_dir / 'epoch_1.pth').stat().st_size / 1e3, rel=0.05)
    assert free == pytest.approx(shutil.disk_usage(small_disk).free / 1e3, abs=0.1)
    assert way_out == f'{WAY_OUT} --resume goes on from {work_dir}/epoch_1.pth.'
    assert not list(work_dir.glob('.*')) + list(work_dir.glob('epoch_2*'))

    (small_disk / 'filler').unlink()
    train(call, work_dir, '--resume')
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_6.pth')


def test_first_checkpoint_does_not_fit(call, small_disk):
    leave(small_disk, 409600)
    stderr = train(call, small_disk / 'run', status=1)
    _, _, way_out = read_message(stderr, small_disk / 'run' / 'epoch_1.pth')
    assert way_out == WAY_OUT


def test_outputs_of_the_other_tools(call, small_disk):
    train(call, small_disk.parent / 'run')
    checkpoint = (small_disk.parent / 'run' / 'last_checkpoint').read_text()
    leave(small_disk, 8192)
    before = list(small_disk.iterdir())

    elsewhere, out = small_disk.parent / 'deploy.pth', small_disk / 'deploy.pth'
    for path, status in (elsewhere, 0), (out, 1):
        stderr = call('reparameterize', CONFIG, checkpoint, path, status=status)
    expected = pytest.approx(elsewhere.stat().st_size / 1e3, abs=0.1), 8.2, WAY_OUT
    assert read_message(stderr, out) == expected

    out = small_disk / 'predictions.pkl'
    stderr = call('test', CONFIG, checkpoint, '--demo-data', '--out', out, status=1)
    assert read_message(stderr, out) == (8.2, 8.2, WAY_OUT)
    assert list(small_disk.iterdir()) == before


@pytest.mark.parametrize(('format', 'suffix'), [('onnx', '.onnx'), ('torch-export', '.pt2')])
def test_exported_files(call, small_disk, format, suffix):
    """Without room for the weights nothing is recorded; with room for them alone, writing fails."""
    pytest.importorskip('onnxscript', reason='no onnxscript package')
    pytest.importorskip('onnxruntime', reason='no onnxruntime package')
    weights = small_disk.parent / 'weights.pth'
    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict()), weights)
    switch_to_deploy(model)
    needed = 4 * sum(parameter.numel() for parameter in model.parameters())
    out = small_disk / f'model{suffix}'
    before = list(small_disk.iterdir())
    for free, beginning in (20480, 'about'), (needed // 4096 * 4096 + 8192, 'more than'):
        leave(small_disk, free)
        stderr = call(
            *('export', CONFIG, weights, '--format', format, '--out', out, '--demo-data'),
            *('--count', 1, '--input-size', 64, 64),
            status=1,
        )
        error = stderr[stderr.index('error: ') :].splitlines()
        assert error[0].startswith(f'error: {out} cannot be written: it needs {beginning} ')
        assert error[1:] == [WAY_OUT]
        (small_disk / 'filler').unlink()
        assert list(small_disk.iterdir()) == before


def test_drawn_predictions(call, small_disk):
    train(call, small_disk.parent / 'run')
    checkpoint = (small_disk.parent / 'run' / 'last_checkpoint').read_text()
    leave(small_disk, 8192)
    arguments = ('--demo-data', '--work-dir', 'elsewhere', '--show-dir', small_disk / 'drawn')
    stderr = call('test', CONFIG, checkpoint, *arguments, status=1)
    assert re.search(
        rf'error: {small_disk}/drawn cannot be written: [\d.]+ kB are free on its disk\.\n{WAY_OUT}\n$',
        stderr,
    )


def test_demo_data(call, small_disk):
    leave(small_disk, 204800)
    before = list(small_disk.iterdir())
    out = small_disk / 'coco'
    stderr = call('make_demo_data', 'coco', '--out', out, '--images', 40, status=1)
    needed, free, way_out = read_message(stderr, out)
    assert 150 < needed <= free == 204.8 and way_out == WAY_OUT
    assert '\nerror: ' in stderr, 'glued to the progress bar'
    assert list(small_disk.iterdir()) == before


def test_download(small_disk, web_server, monkeypatch):
    folder, address, _ = web_server
    (folder / 'x.pth').write_bytes(bytes(100_000))
    leave(small_disk, 20480)
    cache = small_disk / 'hub' / 'checkpoints'
    monkeypatch.setenv('TORCH_HOME', str(small_disk))
    url = f'{address}/x.pth'
    with pytest.raises(NoSpaceError) as error:
        load_checkpoint(url)
    first, second = str(error.value).splitlines()
    assert re.fullmatch(
        rf'{cache}/{cached_name(url)} cannot be written: [\d.]+ kB are free on its disk\.', first
    )
    assert second == 'Make room there, or set TORCH_HOME to a folder on another disk.'
    assert list(cache.iterdir()) == []
