"""Fixtures of every test."""

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def no_default_scope_is_left_behind():
    """MMEngine keeps the default scope of the last runner for the whole process."""
    yield
    DefaultScope._instance_dict.clear()
