"""The CUDA sources where there is no GPU.

The translation units of `csrc/depthwise_conv2d/cuda` are compiled twice. With g++ for the host, through the
emulator in `cuda_emulator`, which runs the very same kernels thread by thread under
AddressSanitizer, so that results, bounds, alignment, barriers and launch configurations are tested.
With nvcc, where there is one, for the report of registers, spills and shared memory.

What is compiled is kept in `build/cuda_tests` under a hash of the sources.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from op_cases import CASES, Case, assert_close, expected_of, inputs_of

from unireplknet_ops import build

OPS = Path(__file__).parents[1]
SOURCES = OPS / 'csrc/depthwise_conv2d/cuda'
EMULATOR = OPS / 'tests/cuda_emulator'
BUILD = OPS / 'build/cuda_tests'
# The kernels' translation units; the host functions need torch and hold no kernel.
UNITS = sorted(set(SOURCES.glob('*.cu')) - {SOURCES / 'depthwise_conv2d.cu'})

HOST_FLAGS = [
    *('-std=c++17', '-O1', '-g1', '-Wall', '-Wextra', '-Wno-unknown-pragmas'),
    *('-fsanitize=address,alignment,signed-integer-overflow', '-fno-sanitize-recover=all'),
    *(f'-I{SOURCES}', f'-I{EMULATOR}'),
]
DEVICE_FLAGS = ['-std=c++17', '-O3', '--expt-relaxed-constexpr', '-Xptxas', '-v']
ARCHITECTURES = ('sm_80', 'sm_90a', 'sm_100')

DTYPES = dict(float32=torch.float32, float16=torch.float16, bfloat16=torch.bfloat16)
KERNELS = [
    *(('direct', dtype) for dtype in DTYPES),
    *(('tensor_core', dtype) for dtype in ('float16', 'bfloat16')),
]
OPERATIONS = ('forward', 'backward_input', 'backward_weight')
# Ways to compute NCHW maps that are not chosen by default (UNIREPLKNET_CUDA_VARIANTS).
VARIANTS = ('seven_rows', 'prefetch', 'seven_rows,prefetch')
# Beside the shapes that every implementation is tested with, but for the widest, which are there for
# the CPU kernels and take the emulator long: maps of several tiles, filters of every width that is
# compiled on its own, and enough planes that a block takes several of them, of one channel or of
# more.
EMULATED_CASES = (
    *(case for case in CASES if case.n > 0 and case.w <= 128),
    *(Case(1, 2, 11, 18, 5, width) for width in (3, 5, 7, 9, 11, 13, 15, 17)),
    *(Case(1, 2, 11, 34, 3, width) for width in (19, 21, 23, 25, 27, 29, 31, 33)),
    Case(1, 2, 9, 70, 5, 51),
    Case(1, 1, 70, 90, 19, 21),
    Case(1, 1, 100, 168, 7, 7),
    Case(24, 16, 14, 14, 7, 7),
    Case(16, 40, 7, 7, 5, 5),
    Case(3, 270, 9, 14, 3, 3),
    Case(1, 600, 7, 6, 3, 3),
    Case(300, 1, 14, 28, 5, 5),
    Case(70, 2, 7, 7, 3, 3, 2),
)


def included_by(source: Path) -> list[Path]:
    """The source and the project's headers that it includes, directly or not."""
    found, waiting = [], [source]
    while waiting:
        path = waiting.pop()
        found.append(path)
        for name in re.findall(r'#include "(.+?)"', path.read_text()):
            candidates = (path.parent / name, SOURCES / name, EMULATOR / name)
            header = next(candidate for candidate in candidates if candidate.exists())
            if header not in [*found, *waiting]:
                waiting.append(header)
    return sorted(found)


def compile_once(command: list[str], source: Path, suffix: str) -> Path:
    """Append source and output to the command, run it, and return the output's path.

    The compiler's messages lie beside the output, as `.log`. Nothing is done where an output of the
    same command and sources exists.
    """
    content = hashlib.sha256(repr(command).encode())
    for path in included_by(source):
        content.update(path.read_bytes())
    output = BUILD / f'{source.stem}-{content.hexdigest()[:16]}{suffix}'
    log = output.with_suffix('.log')
    if output.exists() and log.exists():
        return output
    BUILD.mkdir(parents=True, exist_ok=True)
    # Earlier outputs, but no other process's: it may be making this one, under a name of its own.
    for old in BUILD.glob(f'{source.stem}-{"[0-9a-f]" * 16}{suffix}'):
        if old != output:
            old.unlink(missing_ok=True)
            old.with_suffix('.log').unlink(missing_ok=True)
    partial = output.with_name(f'{output.stem}.{os.getpid()}{suffix}')
    done = subprocess.run(
        [*command, '-c', str(source), '-o', str(partial)], capture_output=True, text=True
    )
    assert done.returncode == 0, f'{" ".join(done.args)}\n{done.stderr}'
    log.write_text(done.stdout + done.stderr)
    partial.rename(output)
    return output


def compile_all(commands: list[tuple[list[str], Path, str]]) -> list[Path]:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda arguments: compile_once(*arguments), commands))


def build_for_host(sources: list[Path], name: str) -> Path:
    """Compile the sources against the emulator and link them."""
    compiler = os.environ.get('CXX', 'g++')
    if shutil.which(compiler) is None:
        pytest.skip(f'{compiler} is not installed')
    command = [compiler, *HOST_FLAGS, '-x', 'c++']
    objects = compile_all([(command, source, '.o') for source in sources])
    logs = ''.join(path.with_suffix('.log').read_text() for path in objects)
    assert 'warning' not in logs, logs
    digest = hashlib.sha256(''.join(path.name for path in objects).encode()).hexdigest()[:16]
    program = BUILD / f'{name}-{digest}'
    if not program.exists():
        for old in BUILD.glob(f'{name}-{"[0-9a-f]" * 16}'):
            if old != program:
                old.unlink(missing_ok=True)
        partial = program.with_suffix(f'.{os.getpid()}')
        link = [compiler, '-fsanitize=address,undefined', *map(str, objects), '-o', str(partial)]
        subprocess.run(link, check=True)
        partial.rename(program)
    return program


def run_program(program: Path, *arguments: str, text: str = '', **environment: str):
    return subprocess.run(
        [str(program), *arguments],
        input=text,
        env={**os.environ, 'ASAN_OPTIONS': 'redzone=2048', **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope='module')
def emulator_test() -> Path:
    return build_for_host([EMULATOR / 'emulator_test.cpp'], 'emulator_test')


@pytest.fixture(scope='module')
def driver() -> Path:
    return build_for_host([EMULATOR / 'driver.cpp', *UNITS], 'driver')


@pytest.mark.parametrize('order', ['ascending', 'descending'])
@pytest.mark.parametrize('case', ['sum', 'multiply', 'conversions', 'too_much_shared', 'division'])
def test_emulator_computes(emulator_test, case, order):
    done = run_program(emulator_test, case, CUDA_EMULATOR_ORDER=order)
    assert (done.returncode, done.stdout) == (0, 'right\n'), done.stderr


@pytest.mark.parametrize(
    ('case', 'message'),
    [
        ('barrier_in_branch', 'deadlock'),
        ('different_barriers', 'while others wait at line'),
        ('shuffle_in_branch', 'deadlock'),
        ('missing_barrier', 'wrong'),
        ('copy_not_waited_for', 'wrong'),
        ('beyond_shared', 'heap-buffer-overflow'),
        ('beyond_global', 'heap-buffer-overflow'),
        ('misaligned', 'misaligned address'),
    ],
)
def test_emulator_refuses(emulator_test, case, message):
    """Every mistake that the emulator promises to find, it finds."""
    done = run_program(emulator_test, case, CUDA_EMULATOR_ORDER='ascending')
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def raw(tensor: torch.Tensor) -> bytes:
    tensor = tensor.contiguous()  # alive while its memory is read
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes)


def supported(kernels: str, case: Case) -> bool:
    return kernels == 'direct' or (case.dilation == 1 and max(case.kh, case.kw) <= 31)


def check_kernels(
    driver, directory, kernels, dtype, cases, operations=OPERATIONS, variants=''
) -> None:
    """Compare with the reference, and expect the same bits whichever thread runs first."""
    lines, expectations = [], []
    for case in cases:
        x, weight, bias, grad_output = (t.to(DTYPES[dtype]) for t in inputs_of(case))
        inputs = [(x, weight, bias), (grad_output, weight), (grad_output, x)]
        for operation, tensors, expected, magnitude in zip(
            OPERATIONS, inputs, *(results[:3] for results in expected_of(case)), strict=True
        ):
            if operation not in operations:
                continue
            paths = [directory / f'{len(lines)}_{i}' for i in range(len(tensors) + 1)]
            for path, tensor in zip(paths, tensors, strict=False):
                path.write_bytes(raw(tensor))
            offset = len(lines) % 2
            sizes = [*case, int(operation == 'forward'), offset]
            lines.append(' '.join(map(str, [operation, kernels, dtype, *sizes, *paths])))
            expectations.append((f'{operation} of {case}', paths[-1], expected, magnitude))
    text = '\n'.join(lines) + '\n'
    results = {}
    for order in ('ascending', 'descending'):
        done = run_program(
            driver, text=text, CUDA_EMULATOR_ORDER=order, UNIREPLKNET_CUDA_VARIANTS=variants
        )
        answers = done.stdout.split()
        if done.returncode != 0:
            pytest.fail(f'{lines[len(answers)]}\n{done.stderr[:5000]}')
        assert answers == ['done'] * len(lines)
        for name, path, expected, magnitude in expectations:
            content = path.read_bytes()
            assert results.setdefault(name, content) == content, f'{name}: differs between orders'
            actual = torch.frombuffer(bytearray(content), dtype=DTYPES[dtype])
            assert_close(actual.reshape(expected.shape), expected, magnitude, name)
            path.unlink()


@pytest.mark.parametrize(('kernels', 'dtype'), KERNELS)
def test_kernels_match_the_reference(driver, tmp_path, kernels, dtype):
    cases = [case for case in EMULATED_CASES if supported(kernels, case)]
    check_kernels(driver, tmp_path, kernels, dtype, cases)


@pytest.mark.parametrize('variants', VARIANTS)
@pytest.mark.parametrize(('kernels', 'dtype'), [('direct', 'float32'), ('tensor_core', 'bfloat16')])
def test_variants_match_the_reference(driver, tmp_path, kernels, dtype, variants):
    """On small maps with kernels 13 wide, which all variants take, and on one that none does."""
    cases = [
        *(case for case in EMULATED_CASES if case.kw == 13 and case.n * case.c * case.h < 1000),
        Case(1, 3, 10, 21, 31, 31),
    ]
    check_kernels(driver, tmp_path, kernels, dtype, cases, variants=variants)
    several_units_in_a_block = [Case(257, 1030, 1, 2, 1, 13)]
    check_kernels(
        *(driver, tmp_path, kernels, dtype, several_units_in_a_block, ['backward_weight']),
        variants=variants,
    )


def test_backward_weight_over_many_images(driver, tmp_path):
    """So many channels that a block takes several items one after the other."""
    case = Case(257, 1030, 1, 2, 1, 3)
    check_kernels(driver, tmp_path, 'direct', 'float32', [case], ['backward_weight'])


@pytest.mark.parametrize('variants', ['', 'seven_rows,prefetch', 'channels_last'])
@pytest.mark.parametrize(('kernels', 'dtype'), KERNELS)
def test_launch_configurations(driver, kernels, dtype, variants):
    """Grid and shared memory stay within the limits of every GPU, whatever the shape."""
    sizes = (1, 3, 7, 14, 28, 56, 63, 100, 168, 336, 1000)
    maps = [
        *((n, 384, size, size) for n in (1, 2, 64) for size in sizes),
        *((1, 1, h, w) for h in (1, 50, 4000) for w in (1, 84, 5000)),
        (100_000, 1, 1, 1),
        (1, 100_000, 1, 7),
        (300, 300, 500, 500),  # more than 2**31 elements
        *((2**31 - 1, 1, 1, w) for w in (1, 7, 17)),  # the most planes
    ]
    filters = [
        *((size, size, 1) for size in (*range(1, 33, 2), 45, 63)),
        *((5, 51, 1), (51, 5, 1), (1, 63, 1), (63, 1, 1)),
        *((size, size, dilation) for size in (3, 5, 7, 9) for dilation in (2, 15)),
    ]
    lines = [
        f'{operation} {kernels} {dtype} {n} {c} {h} {w} {kh} {kw} {dilation} 0 0'
        for operation in OPERATIONS
        for n, c, h, w in maps
        for kh, kw, dilation in filters
        if supported(kernels, Case(n, c, h, w, kh, kw, dilation))
    ]
    done = run_program(
        driver,
        text='\n'.join(lines) + '\n',
        CUDA_EMULATOR_DRY_RUN='1',
        UNIREPLKNET_CUDA_VARIANTS=variants,
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split()
    assert len(answers) == len(lines)
    refused = [line for line, answer in zip(lines, answers, strict=True) if answer != 'done']
    assert not refused, f'{len(refused)} launches are refused, such as {refused[:3]}'


def read_report(log: str) -> dict[str, dict[str, int]]:
    """Kernels and what ptxas -v says of each, in bytes and registers."""
    report = {}
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, "
        r'(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?'
        r'Used (?P<registers>\d+) registers(?P<rest>[^\n]*)',
        re.DOTALL,
    )
    for match in pattern.finditer(log):
        values = {key: int(match[key]) for key in ('stack', 'stores', 'loads', 'registers')}
        shared = re.search(r'(\d+) bytes smem', match['rest'])
        report[match['name']] = {**values, 'shared': int(shared[1]) if shared else 0}
    return report


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_resources(architecture):
    """No kernel spills registers or needs more static shared memory than a block gets."""
    try:
        nvcc = build.find_nvcc()
    except build.BuildError as error:
        pytest.skip(str(error))
    virtual = architecture.replace('sm_', 'compute_')
    command = [*nvcc.command, *DEVICE_FLAGS, f'-gencode=arch={virtual},code={architecture}']
    outputs = compile_all([(command, unit, f'.{architecture}') for unit in UNITS])
    for unit, output in zip(UNITS, outputs, strict=True):
        log = output.with_suffix('.log').read_text()
        report = read_report(log)
        assert len(report) == log.count('Compiling entry function') > 0, f'{unit.name}: {log}'
        for kernel, used in report.items():
            assert (used['stores'], used['loads']) == (0, 0), f'{kernel} spills: {used}'
            assert used['stack'] == 0, f'{kernel} keeps arrays in local memory: {used}'
            assert used['shared'] <= 48 * 1024, f'{kernel}: {used}'
