"""The written config: what it states, and that MMEngine reads back what was planned."""

import pytest
from mmengine.config import Config, ConfigDict

from unireplknet_mm.swapping import locate_config
from unireplknet_mm.swapping.writing import base_references, difference, render

OLD = dict(a=1, b=dict(type='X', c=2, d=3), e=[1, 2], f=dict(g=dict(h=1)), i=(1,), j=None)


@pytest.mark.parametrize(
    ('new', 'stated'),
    [
        (OLD, {}),
        (OLD | dict(a=2), dict(a=2)),
        (OLD | dict(k=dict(l=1)), dict(k=dict(l=1))),
        (OLD | dict(b=dict(type='X', c=2, d=4)), dict(b=dict(d=4))),
        (OLD | dict(b=dict(type='X', c=2)), dict(b=dict(_delete_=True, type='X', c=2))),
        (
            OLD | dict(b=dict(type='Y', c=2, d=3)),
            dict(b=dict(_delete_=True, type='Y', c=2, d=3)),
        ),
        (OLD | dict(e=[1, 3]), dict(e=[1, 3])),
        (OLD | dict(e=(1, 2)), dict(e=(1, 2))),
        (OLD | dict(f=dict(g=dict(h=1, i=2))), dict(f=dict(g=dict(i=2)))),
        (OLD | dict(b=None), dict(b=None)),
        (OLD | dict(j=dict(a=1)), dict(j=dict(_delete_=True, a=1))),
        (OLD | dict(a=True), dict(a=True)),
    ],
)
def test_states_what_differs_and_is_read_back_whole(tmp_path, new, stated):
    found = difference(OLD, ConfigDict(new))
    assert found == stated
    (tmp_path / 'base.py').write_text('\n'.join(f'{key} = {value!r}' for key, value in OLD.items()))
    lines = [f'{key} = {render(value)}' for key, value in found.items()]
    (tmp_path / 'child.py').write_text('\n'.join(["_base_ = 'base.py'", *lines]))
    read = Config.fromfile(tmp_path / 'child.py')._cfg_dict.to_dict()
    assert read == new


@pytest.mark.parametrize(
    'value',
    [
        dict(a=1, b=[1, 2], c=(3,), d=(), e={}, f='it"s', g=1e-06, h=None),
        {'a.b': 1, 'class': 2, 3: 4},
        dict(long=[dict(type='LoadImageFromFile', backend_args=None) for _ in range(9)]),
        [[(1333, 480 + 32 * i) for i in range(12)]],
    ],
)
def test_values_are_rendered_as_python_in_short_lines(value):
    text = render(value)
    assert eval(text) == value
    assert all(len(line) < 100 for line in text.splitlines())


def test_own_config_is_named_relative_to_the_written_one(tmp_path):
    path = tmp_path / 'configs' / 'mine.py'
    assert base_references(path, path, tmp_path / 'swapped' / 'new.py') == ['../configs/mine.py']


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_config_of_a_package_is_named_by_the_package(tmp_path, package):
    """Not by where it is on this machine."""
    path = locate_config(f'{package}::_base_/default_runtime.py')
    name, code = base_references(f'{package}::_base_/x.py', path, tmp_path / 'new.py')
    assert name == f'{package}::_base_/x.py'
    assert code.startswith(f"__import__('{package}').__path__[0] + '/")
    (tmp_path / 'new.py').write_text(f'_base_ = {render(code)}\n')
    assert Config.fromfile(tmp_path / 'new.py').default_scope == package
