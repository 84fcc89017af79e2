"""Walking through nested configs."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config


def find_dicts(config: Any) -> Iterator[dict]:
    """Every dict in a nested config, outer before inner."""
    if isinstance(config, Config):
        config = config._cfg_dict
    if isinstance(config, dict):
        yield config
        for value in list(config.values()):
            yield from find_dicts(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from find_dicts(value)
