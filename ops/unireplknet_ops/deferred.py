"""What has to wait for a module that is slow to import, and that most processes never import."""

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec


def when_imported(name: str, function: Callable[[], None]) -> None:
    """Call a function right after somebody imports the module of that name; now, if it is there."""
    if name in sys.modules:
        function()
    else:
        sys.meta_path.insert(0, _Finder(name, function))


class _Finder(MetaPathFinder):
    """Finds one module, once, as the finders behind it do, and adds the call to its loader."""

    def __init__(self, name: str, function: Callable[[], None]):
        self.name = name
        self.function = function

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_call(module) -> None:
                execute(module)
                self.function()

            spec.loader.exec_module = execute_and_call
        return spec
