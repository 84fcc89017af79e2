"""Swaps of published configs, planned once for all tests."""

import functools

import pytest
from mmengine.config import Config

from unireplknet_mm.swapping import Swap, plan_swap, read_original
from unireplknet_mm.swapping.maps import LEFT_OUT, measure_backbone
from unireplknet_mm.swapping.rules import levels


@pytest.fixture(autouse=True, scope='session')
def each_backbone_is_measured_once():
    """Most of these configs have the same few ResNets."""
    measured = {}

    def measure(config, *arguments):
        sizes = {key: value for key, value in config.items() if key not in LEFT_OUT}
        key = repr((sizes, arguments))
        if key not in measured:
            measured[key] = measure_backbone(config, *arguments)
        return list(measured[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, 'measure_backbone', measure)
        yield


@functools.cache
def _original(name: str) -> Config:
    return read_original(name)[1]


@pytest.fixture
def original():
    """A published config, by its name."""
    return _original


@pytest.fixture
def plan():
    """Swap the backbone of a published config, with changes to it made before by a function."""

    def plan(name: str, arch: str = 'a', edit=None, **options) -> Swap:
        config = Config(_original(name)._cfg_dict.to_dict(), filename=_original(name).filename)
        if edit:
            edit(config)
        return plan_swap(config, arch, **options)

    return plan


@pytest.fixture
def reported():
    """The changes of a swap at places that begin with a text, as {place: what}."""

    def reported(swap: Swap, start: str = '') -> dict[str, str]:
        return {c.place: c.what for c in swap.changes if c.place.startswith(start)}

    return reported
