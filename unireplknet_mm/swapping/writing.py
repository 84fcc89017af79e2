"""The written config: it inherits the original and states what differs, with the reasons in its docstring."""

import copy
import keyword
import os
import textwrap
from pathlib import Path
from typing import Any

from mmengine.config import Config

from unireplknet_mm.swapping.config_files import FILE_NAME, INSTALLED, package_folder
from unireplknet_mm.swapping.swap import Swap

WIDTH = 96
DELETE = '_delete_'
FIRST_KEYS = ('custom_imports', 'model')


class Code(str):
    """Python of the written config, such as the name of a variable, in place of its value."""


def difference(old: dict, new: dict) -> dict[str, Any]:
    """What a config that inherits `old` states to become `new`.

    A dict that loses keys, or takes the place of something else, is stated whole, with `_delete_`. Keys of
    the outermost dict cannot be lost.
    """
    stated: dict[str, Any] = {}
    for key, value in new.items():
        if key not in old:
            stated[key] = _plain(value)
        elif isinstance(value, dict) and isinstance(old[key], dict):
            if set(old[key]) - set(value) or old[key].get('type') != value.get('type'):
                stated[key] = {DELETE: True, **_plain(value)}
            else:
                inner = difference(old[key], value)
                if inner:
                    stated[key] = inner
        elif isinstance(value, dict):
            stated[key] = {DELETE: True, **_plain(value)}
        elif type(old[key]) is not type(value) or old[key] != value:
            stated[key] = _plain(value)
    return stated


def write_config(swap: Swap, original: Config, base: str, notes: list[str]) -> str:
    """The text of the config.

    Args:
        original: the config before the swap.
        base: what `_base_` says.
        notes: paragraphs at the end of the docstring.
    """
    stated = difference(original._cfg_dict, swap.config)
    lists = {key: value for key, value in stated.items() if isinstance(value, list)}
    order = [
        *(key for key in FIRST_KEYS if key in stated),
        *(key for key in lists if key not in FIRST_KEYS),
        *(key for key in stated if key not in FIRST_KEYS and key not in lists),
    ]
    comment = (
        ['# MMEngine has no name for where this is installed'] if isinstance(base, Code) else []
    )
    lines = [f'"""{_docstring(swap, base, notes)}"""', '', *comment, f'_base_ = {render(base)}', '']
    known: dict[str, list] = {}
    for key in order:
        lines.append(f'{key} = {render(_with_names(stated[key], known), len(key) + 3)}')
        if key in lists:
            known[key] = lists[key]
    return '\n'.join(lines) + '\n'


def base_references(name: str | Path, path: Path, out: Path) -> list[str]:
    """What `_base_` may say to reach the original, best first.

    MMEngine looks `mmdet::...` up by the names of OpenMMLab's distributions, which not every fork has; then
    an expression asks the package where it is. A path of the user's is relative to the folder of `out`.
    """
    match = INSTALLED.fullmatch(str(name))
    if match:
        package = match[1]
        relative = os.path.relpath(path, package_folder(package)).replace(os.sep, '/')
        return [str(name), Code(f'__import__({package!r}).__path__[0] + {"/" + relative!r}')]
    return [os.path.relpath(path.resolve(), out.resolve().parent)]


def with_file_name(text: str, out: Path) -> str:
    """A setting as MMEngine reads it from the file `out`, whose name may be a part of it."""
    return FILE_NAME.sub(lambda match: out.stem if match[1] else out.name, text)


def _docstring(swap: Swap, base: str, notes: list[str]) -> str:
    title = f'{Path(base.partition("::")[2] or base).stem} with {swap.title} in place of {swap.old_type}.'
    paragraphs = [
        '\n'.join(textwrap.wrap(title, WIDTH)),
        'What differs from the original, and why:',
    ]
    paragraphs.append('\n'.join(_bullet(str(change)) for change in swap.changes))
    if swap.warnings:
        paragraphs.append('Mind:\n' + '\n'.join(_bullet(text) for text in swap.warnings))
    paragraphs += ['\n'.join(textwrap.wrap(note, WIDTH)) for note in notes]
    text = '\n\n'.join(paragraphs) + '\n'
    return text.replace('\\', '/').replace('"""', "'''")


def _bullet(text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent='- ',
        subsequent_indent='  ',
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain(value: Any) -> Any:
    """The same in dicts and lists of Python, which have no settings of MMEngine's attached."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(part) for part in value)
    return copy.deepcopy(value)


def _with_names(value: Any, names: dict[str, list]) -> Any:
    """The value, with the name of a variable in place of each list that equals it."""
    if isinstance(value, dict):
        return {key: _with_names(part, names) for key, part in value.items()}
    if isinstance(value, list):
        for name, known in names.items():
            if value and value == known:
                return Code(name)
        return [_with_names(part, names) for part in value]
    return value


def render(value: Any, column: int = 0, indent: int = 0) -> str:
    """A value as Python source, in one line where it fits, else one item a line.

    Args:
        column: where in its line it begins.
        indent: of the line that it stands in.
    """
    if isinstance(value, Code):
        return str(value)
    if not isinstance(value, dict | list | tuple):
        return repr(value)
    flat = _render_flat(value)
    if column + len(flat) < WIDTH:
        return flat
    inner = indent + 4
    opening, closing = _brackets(value)
    lines = []
    for prefix, part in _items(value):
        text = render(part, inner + len(prefix) + 1, inner)
        lines.append(f'{" " * inner}{prefix}{text},')
    return '\n'.join([opening, *lines, ' ' * indent + closing])


def _render_flat(value: Any) -> str:
    if isinstance(value, Code) or not isinstance(value, dict | list | tuple):
        return str(value) if isinstance(value, Code) else repr(value)
    opening, closing = _brackets(value)
    parts = [prefix + _render_flat(part) for prefix, part in _items(value)]
    comma = ',' if isinstance(value, tuple) and len(parts) == 1 else ''
    return opening + ', '.join(parts) + comma + closing


def _brackets(value: dict | list | tuple) -> tuple[str, str]:
    if isinstance(value, dict):
        return ('dict(', ')') if _has_names(value) else ('{', '}')
    return ('[', ']') if isinstance(value, list) else ('(', ')')


def _items(value: dict | list | tuple) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [('', part) for part in value]
    named = _has_names(value)
    return [(f'{key}=' if named else f'{key!r}: ', part) for key, part in value.items()]


def _has_names(value: dict) -> bool:
    return all(
        isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value
    )
