"""Importing the package: light, on torch alone, quiet; what it puts off is there when needed."""

import ast
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest
from op_cases import reason_to_skip, run_python

import unireplknet_ops

needs_op = pytest.mark.skipif(reason_to_skip('cpu') is not None, reason='no compiled op')


def output_of(code: str) -> str:
    done = run_python(code)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_needs_torch_alone():
    code = """
import sys, torch
before = set(sys.modules)
import unireplknet_ops
print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
"""
    assert set(output_of(code).split()) - {'torch'} == {'unireplknet_ops'}


def test_no_source_imports_anything_but_torch():
    """Also not inside a function; a peer to compare with is looked for by the benchmark alone."""
    allowed = {*sys.stdlib_module_names, 'torch', 'unireplknet_ops'}
    found = set()
    for path in Path(unireplknet_ops.__file__).parent.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            elif isinstance(node, ast.Call) and getattr(node.func, 'attr', '') == 'import_module':
                names = [getattr(node.args[0], 'value', ast.unparse(node))]
            else:
                continue
            found |= {(path.name, name.partition('.')[0]) for name in names}
    others = {(file, name) for file, name in found if name not in allowed}
    assert others == {('peers.py', 'subquadratic_ops_torch')}


def test_importing_it_takes_little_beside_torch():
    """0.1 s where torch takes 1.5 s, both in processor time: a busy machine slows them alike."""
    code = """
import time
start = time.process_time()
import torch
torchs = time.process_time() - start
import unireplknet_ops
print((time.process_time() - start - torchs) / torchs)
"""
    assert min(float(output_of(code)) for _ in range(3)) < 0.1 / 1.5


@needs_op
@pytest.mark.parametrize(
    'order', ['flop_counter, unireplknet_ops', 'unireplknet_ops, flop_counter']
)
def test_flops_are_counted_in_either_order_of_imports(order):
    imports = order.replace('flop_counter', 'torch.utils.flop_counter')
    code = f"""
import {imports}
import torch
with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
    torch.ops.unireplknet.depthwise_conv2d(torch.ones(1, 2, 5, 7), torch.ones(2, 1, 3, 3))
print(counter.get_total_flops())
"""
    assert output_of(code) == f'{2 * 2 * 5 * 7 * 9}\n'


@needs_op
def test_the_finder_is_gone_once_it_has_served():
    code = """
import sys, unireplknet_ops
from unireplknet_ops.deferred import _Finder
def count():
    names = [finder.name for finder in sys.meta_path if isinstance(finder, _Finder)]
    return names.count('torch.utils.flop_counter')
print(count())
import torch.utils.flop_counter
print(count())
"""
    assert output_of(code).split() == ['3', '0']  # three files of operators wait


@needs_op
def test_it_says_nothing_when_all_is_well():
    done = run_python(
        'import unireplknet_ops as o, torch; o.depthwise_conv2d(*2 * [torch.ones(1, 1, 3, 3)])'
    )
    assert done.returncode == 0 and done.stdout == '' and 'unireplknet' not in done.stderr


def test_no_name_of_the_package_hides_one_of_its_modules():
    """`import unireplknet_ops.MODULE.PART as part` looks the module up as an attribute."""
    modules = {info.name for info in pkgutil.iter_modules(unireplknet_ops.__path__)}
    shown = {name for name in modules if name in vars(unireplknet_ops)}
    assert {'depthwise', 'library'} <= shown
    assert not [name for name in shown if not inspect.ismodule(getattr(unireplknet_ops, name))]
