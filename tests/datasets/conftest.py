"""Small demo data of every layout, generated once."""

from pathlib import Path

import pytest
from helpers import SMALL_DEMO_DATA

from unireplknet_mm.datasets import make_demo_data
from unireplknet_mm.datasets.layouts import LAYOUTS


@pytest.fixture(scope='session')
def generated(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp('demo')
    return {name: make_demo_data(name, root / name, **small_demo_data(name)) for name in LAYOUTS}


def small_demo_data(layout: str) -> dict:
    """What of `SMALL_DEMO_DATA` a layout has: not all are of images."""
    counts = ('images', 'val_images')
    known = (*counts, *LAYOUTS[layout].defaults)
    return {key: value for key, value in SMALL_DEMO_DATA.items() if key in known}
