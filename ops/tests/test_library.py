"""A library file that is there must load: the other tests of the op skip where it does not."""

import pytest

from unireplknet_ops import library


def test_library_that_was_built_loads():
    path = library.directory() / library.FILE_NAMES['cpu']
    if not path.exists():
        pytest.skip(f'{path} was not built')
    assert library.missing('cpu') is None
