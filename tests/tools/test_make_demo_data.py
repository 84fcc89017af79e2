"""The command that writes demo data."""

import os
import signal

import pytest
from helpers import read_tree

from unireplknet_mm.datasets import make_demo_data

OPTIONS = ('--images', 2, '--val-images', 1, '--size', 96, 64)


@pytest.fixture(autouse=True)
def signal_handler():
    """The tool has one of its own, which must not outlive the test."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_writes_what_the_function_writes(call, tmp_path):
    printed = call('make_demo_data', 'coco', '--out', tmp_path / 'tool', *OPTIONS)
    assert printed == f'coco demo data: {tmp_path / "tool"}\n'
    expected = make_demo_data('coco', tmp_path / 'function', 2, 1, size=(96, 64))
    assert read_tree(tmp_path / 'tool') == read_tree(expected)


def test_errors_come_in_one_line(call, tmp_path):
    out = tmp_path / 'coco'
    stderr = call('make_demo_data', 'coco', '--out', out, '--images', 0, status=1)
    assert stderr == 'error: images must be at least 1, not 0\n'
    make_demo_data('coco', out, 2, 1, size=(96, 64))
    options = (*OPTIONS[:-2], 128, 64)
    stderr = call('make_demo_data', 'coco', '--out', out, *options, status=1)
    assert stderr == (
        f'error: {out} holds other demo data (size=[96, 64]); ask for overwrite (--overwrite) or '
        'choose another folder\n'
    )
    assert 'imagenet' in call('make_demo_data', 'lvis', '--out', out, *OPTIONS, status=2)


def test_terminated_tool_leaves_nothing(call, monkeypatch, tmp_path):
    def terminate_halfway(images, **kwargs):
        for count, image in enumerate(images):
            if count == 3:
                assert any(tmp_path.rglob('*.jpg'))
                os.kill(os.getpid(), signal.SIGTERM)
            yield image

    def fail(*_):
        pytest.fail('the tool does not handle SIGTERM')

    monkeypatch.setattr('tqdm.tqdm', terminate_halfway)
    signal.signal(signal.SIGTERM, fail)
    call(
        'make_demo_data', 'coco', '--out', tmp_path / 'coco', '--images', 10,
        status=128 + signal.SIGTERM,
    )  # fmt: skip
    assert not any(tmp_path.iterdir())
