"""Calling the tools within the test's process, which spares the seconds of importing everything."""

import importlib
import os
import sys

import pytest
from mmengine.utils import ManagerMixin
from tool_runs import TOOLS


def all_subclasses(kind: type) -> list[type]:
    return [kind, *(sub for child in kind.__subclasses__() for sub in all_subclasses(child))]


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a tool's main() with arguments; return what it printed, or for another `status` its stderr."""

    def call(tool: str, *arguments: object, status: int = 0) -> str:
        with monkeypatch.context() as patch:
            # MMEngine's loggers, message hubs and visualizers live as long as the process.
            for kind in all_subclasses(ManagerMixin):
                kind._instance_dict.clear()
            patch.syspath_prepend(TOOLS)
            patch.setattr(os, 'environ', os.environ.copy())
            patch.setattr(sys, 'argv', [f'{tool}.py', *map(str, arguments)])
            module = importlib.import_module(tool)
            capsys.readouterr()
            if status == 0:
                module.main()
                return capsys.readouterr().out
            with pytest.raises(SystemExit) as exit_info:
                module.main()
            assert exit_info.value.code == status
            return capsys.readouterr().err

    return call
