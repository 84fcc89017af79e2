"""Fixtures of every test."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from tool_runs import skip_layout

skip_layout()


@pytest.fixture(autouse=True)
def no_default_scope_is_left_behind():
    """MMEngine keeps the default scope of the last runner for the whole process."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """What is logged to MMEngine's current logger."""
    lines = []
    handle = MMLogger.get_current_instance().handle
    monkeypatch.setattr(
        MMLogger.get_current_instance(),
        'handle',
        lambda record: (lines.append(record.getMessage()), handle(record)),
    )
    return lines


@pytest.fixture
def web_server(tmp_path):
    """Serves a folder of this machine, and counts what was asked for."""
    folder = tmp_path / 'served'
    folder.mkdir()
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    server = ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Handler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f'http://127.0.0.1:{server.server_port}', asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """An empty cache of huggingface_hub, which may not ask any server."""
    constants = pytest.importorskip(
        'huggingface_hub.constants', reason='huggingface_hub is not installed'
    )
    cache = tmp_path / 'hub'
    cache.mkdir()
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    return cache
