"""For a process of its own: packages that are installed, and are not to be found."""

import sys
from typing import Any


class Hiding:
    """Stands before a finder of modules, which then finds everything but those of `packages`."""

    def __init__(self, finder: Any, packages: tuple[str, ...]):
        self.finder = finder
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        hidden = name.partition('.')[0] in self.packages
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def hide(*packages: str) -> None:
    sys.meta_path[:] = [Hiding(finder, packages) for finder in sys.meta_path]
