"""Every test that takes `device` runs on the CPU and, where there is one, on a GPU (`-m gpu`)."""

import errno
import os
from pathlib import Path

import pytest
import torch
from op_cases import answer_always, reason_to_skip

from unireplknet_ops import dispatch


def pytest_configure(config):
    config.addinivalue_line('markers', 'gpu: computes on a GPU')


def pytest_collection_modifyitems(items):
    for item in items:
        parameters = item.callspec.params if hasattr(item, 'callspec') else {}
        if parameters.get('device') == 'cuda':
            item.add_marker('gpu')


@pytest.fixture(params=['cpu', 'cuda'])
def device(request, monkeypatch) -> str:
    """A type of device on which the compiled op runs, and the native convolution in full precision."""
    if (reason := reason_to_skip(request.param)) is not None:
        pytest.skip(reason)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    return request.param


@pytest.fixture
def nan_in_new_memory():
    """Tensors that are allocated without a value hold NaN, so that an element never written shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # which the filling needs
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def nothing_is_forced(monkeypatch):
    monkeypatch.delenv('UNIREPLKNET_DWCONV', raising=False)
    dispatch.clear_cache()
    yield
    dispatch.clear_cache()


@pytest.fixture
def faster(monkeypatch):
    """Sets what was measured to be faster; returns the list of the problems that are asked about."""

    def set_answer(answer):
        questions = []
        monkeypatch.setattr(dispatch, 'choose_by_measurement', answer_always(answer, questions))
        dispatch.clear_cache()
        return questions

    return set_answer


@pytest.fixture
def full_disk(monkeypatch):
    """Text files are begun, and then there is no room for them."""

    def write_text(path, text, encoding=None):
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, 'write_text', write_text)
