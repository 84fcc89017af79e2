"""Small demo data of every layout, generated once."""

from pathlib import Path

import pytest
from helpers import SMALL_DEMO_DATA

from unireplknet_mm.datasets import make_demo_data
from unireplknet_mm.datasets.layouts import LAYOUTS


@pytest.fixture(scope='session')
def generated(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp('demo')
    return {layout: make_demo_data(layout, root / layout, **SMALL_DEMO_DATA) for layout in LAYOUTS}
