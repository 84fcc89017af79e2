"""What would keep the packages off macOS and Windows, where no test runs: imports, names of files, paths."""

import ast
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = [
    file
    for folder in ('unireplknet_mm', 'ops/unireplknet_ops', 'tools')
    for file in sorted((ROOT / folder).rglob('*.py'))
    if '.mim' not in file.parts
]
ON_POSIX_ALONE = {'fcntl', 'grp', 'posix', 'pty', 'pwd', 'resource', 'syslog', 'termios', 'tty'}
RESERVED = {
    'aux',
    'con',
    'nul',
    'prn',
    *(f'{port}{i}' for port in ('com', 'lpt') for i in range(10)),
}


def imported_at_once(tree: ast.Module) -> set[str]:
    """The packages that a module imports when it is imported itself."""
    inner = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    names = set()
    for node in ast.walk(tree):
        if node in inner:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.partition('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition('.')[0])
    return names


@pytest.mark.parametrize('file', CODE, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_needs_posix_to_be_imported(file):
    tree = ast.parse(file.read_text(encoding='utf-8'))
    assert not imported_at_once(tree) & ON_POSIX_ALONE


def test_the_check_finds_what_it_looks_for():
    assert imported_at_once(
        ast.parse('def f():\n  import fcntl\ntry:\n  import pwd\nfinally: pass')
    ) == {'pwd'}


def test_files_have_names_that_windows_and_macos_can_hold():
    folders = (
        'configs',
        'docs',
        'ops',
        'requirements',
        'scripts',
        'tests',
        'tools',
        'unireplknet_mm',
    )
    names = [
        PurePosixPath(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob('*')
        if not {'.mim', '__pycache__', 'build', 'lib'} & set(path.parts)
    ]
    assert len(names) > 200
    for name in names:
        assert not set('<>:"\\|?*') & set(str(name)), name
        assert name.stem.lower() not in RESERVED and not name.name.endswith(('.', ' ')), name
    counts = Counter(str(name).lower() for name in names)
    assert max(counts.values()) == 1, 'two names differ in their case alone'
