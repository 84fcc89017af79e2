"""Building: what is compiled how, what is said when a tool is missing, what a wheel holds.

Most tests build small stand-in sources with a copy of build.py; the real sources are compiled
once, for the wheel, without the instruction sets that take longest. A wheel is also loaded by the
interpreters with torch that UNIREPLKNET_OTHER_PYTHONS names (paths, separated by colons);
`make test-wheel` prepares some.
"""

import errno
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from op_cases import PACKAGES

from unireplknet_ops import build, library

OPS = Path(__file__).parents[1]
TORCH = Path(torch.__file__).parent
KNOWN = frozenset({(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)})

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ('g++', 'c++', 'clang++'))), reason='no C++ compiler'
)


def has_setuptools() -> bool:
    try:
        from setuptools.command import bdist_wheel  # noqa: F401
    except ImportError:
        return False
    return True


needs_setuptools = pytest.mark.skipif(
    not has_setuptools(), reason='this interpreter has no setuptools from 70.1 on'
)


def clean_environment(**variables: str) -> dict[str, str]:
    removed = ('CXX', 'CUDACXX', 'CUDA_HOME', 'TORCH_CUDA_ARCH_LIST', 'MAX_JOBS', 'PYTHONPATH')
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in removed and not key.startswith('UNIREPLKNET_')
    }
    return {**kept, 'UNIREPLKNET_BUILD_CUDA': '0', **variables}


class Project:
    """A copy of build.py with small sources of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        package = root / 'unireplknet_ops'
        self.sources = root / 'csrc' / 'an_op'
        self.library = package / 'lib' / build.CPU_LIBRARY
        (self.sources / 'cpu').mkdir(parents=True)
        package.mkdir()
        shutil.copy(build.__file__, package)
        self.write('schema.cpp', '#include "shared.h"\n#include <torch/csrc/stable/library.h>\n')
        self.write('shared.h', 'inline int shared() { return 1; }\n')
        self.write('cpu/kernels_portable.cpp', 'int portable() { return 1; }\n')

    def write(self, name: str, text: str) -> None:
        (self.sources / name).parent.mkdir(exist_ok=True)
        (self.sources / name).write_text(text)

    def run(self, *options: str, status: int = 0, **variables: str):
        done = subprocess.run(
            [sys.executable, 'unireplknet_ops/build.py', *options],
            cwd=self.root,
            env=clean_environment(**variables),
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert 'Traceback' not in done.stderr
        return done

    def ninja_file(self) -> str:
        return (self.root / 'unireplknet_ops/lib/build/build.ninja').read_text()

    def pretend_torch(self, version: str, cuda: str | None) -> dict[str, str]:
        """The environment in which torch is of another version; headers and libraries are real."""
        package = self.root / 'pretended' / 'torch'
        package.mkdir(parents=True)
        (package / '__init__.py').write_text('raise ImportError("the build must not import torch")')
        (package / 'version.py').write_text(f'__version__ = {version!r}\ncuda = {cuda!r}\n')
        for name in ('include', 'lib'):
            (package / name).symlink_to(TORCH / name)
        return {'PYTHONPATH': str(package.parent)}

    def pretend_nvcc(self, release: str) -> dict[str, str]:
        """The environment with an nvcc that only notes how it was called."""
        folder = self.root / 'cuda' / 'bin'
        folder.mkdir(parents=True)
        known = '\n'.join(f'compute_{major}{minor}' for major, minor in sorted(KNOWN))
        (folder / 'nvcc').write_text(
            '#!/bin/sh\n'
            f'case "$1" in --version) echo "release {release}, V";; --list-gpu-arch) echo "{known}";;\n'
            f'*) echo "$@" >>"{self.root}/nvcc.log"; while [ "$1" != -o ]; do shift; done; : >"$2";;\n'
            'esac\n'
        )
        (folder / 'nvcc').chmod(0o755)
        self.write('cuda/kernel.cu', '')
        return {'CUDA_HOME': str(folder.parent), 'UNIREPLKNET_BUILD_CUDA': ''}


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def no_tools(tmp_path) -> dict[str, str]:
    """An environment whose PATH holds no compiler."""
    (tmp_path / 'empty').mkdir()
    return {'PATH': str(tmp_path / 'empty')}


@needs_compiler
def test_builds_what_changed_and_nothing_else(project):
    assert project.run().stdout.split() == [str(project.library)]
    torch.ops.load_library(str(project.library))
    first = project.library.stat().st_mtime_ns
    done = project.run()
    assert done.stderr == '' and project.library.stat().st_mtime_ns == first
    project.write('shared.h', 'inline int shared() { return 2; }\n')
    done = project.run()
    assert 'schema.cpp.o' in done.stderr and 'kernels_portable' not in done.stderr
    assert project.library.stat().st_mtime_ns > first


@needs_compiler
def test_library_is_tied_to_no_python_and_exports_nothing(project):
    project.write(
        'cpu/library.cpp', '#include <vector>\nvoid add(std::vector<int>& v) { v.push_back(1); }'
    )
    project.run()

    def read(*command: str) -> str:
        return subprocess.run(
            [*command, str(project.library)], capture_output=True, text=True, check=True
        ).stdout

    dynamic = read('readelf', '--dynamic', '--wide')
    needed = {line.split('[')[1].split(']')[0] for line in dynamic.splitlines() if 'NEEDED' in line}
    system = {'libstdc++.so.6', 'libm.so.6', 'libgcc_s.so.1', 'libc.so.6'}
    assert {name for name in needed if not name.startswith('ld-linux')} <= system | {
        'libtorch_cpu.so'
    }
    assert 'RPATH' not in dynamic and 'RUNPATH' not in dynamic
    assert read('nm', '--dynamic', '--defined-only').strip() == ''


@needs_compiler
def test_instruction_sets_have_their_flags_and_are_linked_by_demand(project):
    compiler = build.find_compiler()
    names = [
        name for name, flags in build.INSTRUCTION_SETS.items() if build.knows_flags(compiler, flags)
    ]
    if 'avx512' not in names:
        pytest.skip('this compiler is not for x86-64')
    for name in build.INSTRUCTION_SETS:
        macros = ['__AVX2__', '__FMA__'] + ['__AVX512F__'] * ('512' in name)
        macros += ['__AVX512BF16__'] * ('bf16' in name)
        missing = ' || '.join(f'!defined({macro})' for macro in macros)
        project.write(
            f'cpu/kernels_{name}.cpp', f'#if {missing}\n#error flags are missing\n#endif\n'
        )
    project.write(
        'cpu/host.cpp',
        '#ifdef __AVX2__\n#error the host code must run on every processor\n#endif\n'
        + ''.join(
            f'#ifndef UNIREPLKNET_HAVE_{name.upper()}\n#error {name} is not announced\n#endif\n'
            for name in names
        ),
    )
    project.run()
    link = next(
        line
        for line in project.ninja_file().splitlines()
        if build.CPU_LIBRARY in line and 'build ' in line
    )
    objects = [Path(word).name for word in link.split()[3:]]
    assert objects[-len(names) :] == [f'an_op_cpu_kernels_{name}.cpp.o' for name in names]
    assert 'an_op_cpu_kernels_portable.cpp.o' in objects[: -len(names)]


@needs_compiler
def test_compile_error_shows_the_compiler_and_its_command(project):
    project.write('cpu/host.cpp', 'int broken = undeclared;\n')
    done = project.run(status=1)
    assert 'was not declared' in done.stderr or 'undeclared identifier' in done.stderr
    assert 'FAILED' in done.stderr and '-c ' in done.stderr
    assert 'error: the failing command and its messages stand above' in done.stderr
    assert not project.library.exists()


@needs_compiler
def test_sanitized_library_lies_apart(project):
    done = project.run('--sanitize')
    assert done.stdout.split()[-1] == str(project.library.parent / 'sanitize' / build.CPU_LIBRARY)
    assert not project.library.exists()


@pytest.mark.parametrize(
    ('tool', 'variables'),
    [
        ('no C++ compiler found: install g++', {}),
        ('CXX=missing-compiler', {'CXX': 'missing-compiler'}),
        ("CXX=g++ ' is not a command: No closing quotation", {'CXX': "g++ '"}),
    ],
)
def test_missing_compiler(project, no_tools, tool, variables):
    done = project.run(status=1, **no_tools, **variables)
    assert tool in done.stderr and len(done.stderr.splitlines()) == 1


@needs_compiler
@pytest.mark.parametrize('folder', ['shared.h/inside', '/proc/nowhere'])
def test_directory_that_cannot_be_written(project, folder):
    done = project.run('--output', str(project.sources / folder), status=1)
    assert 'error: cannot write' in done.stderr and len(done.stderr.splitlines()) == 1
    assert 'choose a directory with --output' in done.stderr


@needs_compiler
@pytest.mark.parametrize('name', ['shown', None])
def test_read_only_file_system(tmp_path, monkeypatch, name):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, 'Read-only file system', name)

    monkeypatch.setattr(Path, 'mkdir', refuse)
    with pytest.raises(
        build.BuildError, match=f'cannot write {name or tmp_path}: Read-only file system'
    ):
        build.build(tmp_path, cuda=False)


@needs_compiler
def test_paths_with_spaces_and_commas(tmp_path):
    project = Project(tmp_path / 'a folder, with a comma')
    cuda = project.pretend_nvcc('13.0')
    project.run(**cuda, **project.pretend_torch('2.11.0', '13.0'))
    torch.ops.load_library(str(project.library))
    assert project.library.with_name(build.CUDA_LIBRARY).exists()
    # nvcc takes what these options are given for lists, with commas between the entries.
    compile_line, link_line = (project.root / 'nvcc.log').read_text().splitlines()
    assert '-isystem torch/include ' in compile_line
    assert '-Xlinker --version-script=exports.map -Ltorch/lib ' in link_line


def test_missing_ninja(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(build.MissingTool, match='pip install ninja'):
        build.find_ninja()


def test_missing_or_old_torch(project, monkeypatch):
    done = project.run(status=1, **project.pretend_torch('2.9.1', None))
    assert 'torch 2.9.1 is too old' in done.stderr
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    monkeypatch.setattr('sysconfig.get_path', lambda name: str(project.root))
    with pytest.raises(build.MissingTool, match='--no-build-isolation'):
        build.find_torch()


def test_an_isolated_build_finds_the_torch_beside_its_interpreter(project, monkeypatch):
    project.pretend_torch('2.12.0', '13.0')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    monkeypatch.setattr('sysconfig.get_path', lambda name: str(project.root / 'pretended'))
    assert build.find_torch() == build.Torch(project.root / 'pretended/torch', '2.12.0', '13.0')


@needs_setuptools
def test_an_old_torch_is_refused_at_installation(project):
    done = subprocess.run(
        [sys.executable, OPS / 'setup.py', '--version'],
        cwd=OPS,
        env=clean_environment(**project.pretend_torch('2.9.1', None)),
        capture_output=True,
        text=True,
    )
    message = 'torch 2.9.1 is too old for the op: pip install --upgrade "torch>=2.10"'
    assert done.returncode == 1 and done.stderr == f'error: {message}\n'


def test_installation_goes_on_without_a_compiler(project, no_tools):
    done = project.run('--where-possible', **no_tools)
    assert 'warning: no C++ compiler found' in done.stderr and 'F.conv2d' in done.stderr
    environment = clean_environment(PYTHONPATH=str(PACKAGES), OMP_NUM_THREADS='1')
    loaded = subprocess.run(
        [
            sys.executable,
            '-c',
            'import unireplknet_ops.library as l; print(l.missing("cpu"))',
        ],
        env={**environment, library.DIRECTORY_VARIABLE: str(project.library.parent)},
        capture_output=True,
        text=True,
    )
    assert 'no C++ compiler found: install g++' in loaded.stdout, loaded.stderr
    done = project.run('--where-possible', status=1, UNIREPLKNET_BUILD_OPS='1', **no_tools)
    assert 'error: no C++ compiler found' in done.stderr
    assert project.run('--where-possible', UNIREPLKNET_BUILD_OPS='0', **no_tools).stderr == ''
    done = project.run('--where-possible', '--output', '/proc/nowhere', **no_tools)
    assert 'warning: no C++ compiler found' in done.stderr
    done = project.run('--where-possible', status=1, UNIREPLKNET_BUILD_OPS='yes', **no_tools)
    assert 'UNIREPLKNET_BUILD_OPS=yes: set it to 0 or 1' in done.stderr


@needs_compiler
def test_cuda_library_is_built_where_nvcc_and_a_cuda_torch_are(project):
    variables = project.pretend_nvcc('13.0') | project.pretend_torch('2.11.0+cu130', '13.0')
    done = project.run(**variables)
    cuda = project.library.with_name(build.CUDA_LIBRARY)
    assert done.stdout.split()[-2:] == [str(project.library), str(cuda)] and cuda.exists()
    compile_line, link_line = (project.root / 'nvcc.log').read_text().splitlines()
    assert '-gencode=arch=compute_90a,code=sm_90a' in compile_line and '-DUSE_CUDA' in compile_line
    assert '-cudart static' in link_line and '-ltorch_cuda' in link_line
    project.run(**variables, TORCH_CUDA_ARCH_LIST='8.6')
    compile_line = (project.root / 'nvcc.log').read_text().splitlines()[2]
    assert compile_line.count('-gencode') == 1 and 'sm_86' in compile_line
    done = project.run(**(variables | {'CUDA_HOME': str(project.root / 'nowhere')}))
    assert 'CUDA kernels are left out: ' in done.stderr and cuda.exists()
    done = project.run(**(variables | {'UNIREPLKNET_BUILD_CUDA': '0'}))
    assert f'deleted {cuda}: the CUDA kernels are switched off' in done.stderr
    assert project.library.exists() and not cuda.exists()


@needs_compiler
@pytest.mark.parametrize(
    ('torch_cuda', 'release', 'reason'),
    [
        (None, '13.0', None),  # nothing to say: a CPU build of torch
        ('12.8', '13.0', 'nvcc is of CUDA 13.0, torch 2.11.0 of CUDA 12.8'),
        ('13.0', None, 'there is no nvcc at'),
    ],
)
def test_cuda_library_is_left_out_with_a_reason(project, torch_cuda, release, reason):
    variables = project.pretend_nvcc(release or '13.0') | project.pretend_torch(
        '2.11.0', torch_cuda
    )
    if release is None:
        variables['CUDA_HOME'] = str(project.root / 'nowhere')
    done = project.run(**variables)
    assert project.library.exists() and not (project.root / 'nvcc.log').exists()
    if reason:
        assert 'CUDA kernels are left out: ' in done.stderr and reason in done.stderr
    else:
        assert 'CUDA' not in done.stderr
    if torch_cuda is None or release is None:
        done = project.run('--cuda', status=1, **variables)
        assert (reason or 'is a CPU build') in done.stderr


def test_architectures_by_default_are_those_nvcc_knows():
    assert build.parse_architectures(None, KNOWN) == [
        '-gencode=arch=compute_80,code=sm_80',
        '-gencode=arch=compute_86,code=sm_86',
        '-gencode=arch=compute_89,code=sm_89',
        '-gencode=arch=compute_90a,code=sm_90a',
        '-gencode=arch=compute_100,code=sm_100',
        '-gencode=arch=compute_120,code=sm_120',
        '-gencode=arch=compute_80,code=compute_80',
    ]
    assert build.parse_architectures(' ', frozenset({(8, 0), (9, 0)})) == [
        '-gencode=arch=compute_80,code=sm_80',
        '-gencode=arch=compute_90a,code=sm_90a',
        '-gencode=arch=compute_80,code=compute_80',
    ]


def test_architectures_from_the_environment(capsys):
    assert build.parse_architectures('8.0;9.0a 10.0+PTX', KNOWN) == [
        '-gencode=arch=compute_80,code=sm_80',
        '-gencode=arch=compute_90a,code=sm_90a',
        '-gencode=arch=compute_100,code=sm_100',
        '-gencode=arch=compute_100,code=compute_100',
    ]
    assert build.parse_architectures('7.5 8.6', KNOWN) == ['-gencode=arch=compute_86,code=sm_86']
    assert '7.5 is left out: the kernels need 8.0' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('Hopper', "'Hopper' is not an architecture"),
        ('8.0,9.0', "'8.0,9.0' is not an architecture"),
        ('13.0', 'this nvcc does not know 13.0'),
        ('7.0;7.5', 'no architecture from 8.0 on is left'),
    ],
)
def test_wrong_architectures_are_refused(text, message):
    with pytest.raises(build.BuildError, match=message):
        build.parse_architectures(text, KNOWN)


@needs_setuptools
def test_sdist_holds_every_file(tmp_path):
    built = shutil.ignore_patterns('lib', 'build', '*.egg-info', '__pycache__', '.*_cache')
    copy = Path(shutil.copytree(OPS, tmp_path / 'ops', ignore=built))
    files = {str(path.relative_to(copy)) for path in copy.rglob('*') if path.is_file()}
    subprocess.run(
        [sys.executable, '-c', 'from setuptools.build_meta import build_sdist as f; f("..")'],
        cwd=copy,
        env=clean_environment(),
        capture_output=True,
        check=True,
    )
    (archive,) = tmp_path.glob('unireplknet_ops-*.tar.gz')
    with tarfile.open(archive) as opened:
        held = {name.partition('/')[2] for name in opened.getnames()}
    assert files - held == set()


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    if not any(map(shutil.which, ('g++', 'c++', 'clang++'))):
        pytest.skip('no C++ compiler')
    if not has_setuptools():
        pytest.skip('this interpreter has no setuptools from 70.1 on')
    sources = tmp_path_factory.mktemp('sources') / 'ops'
    ignored = shutil.ignore_patterns(
        'lib', 'build', 'tests', '*.egg-info', '__pycache__', 'kernels_avx*'
    )
    shutil.copytree(OPS, sources, ignore=ignored)
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pip',
            'wheel',
            '.',
            '--no-deps',
            '--no-build-isolation',
            '-w',
            'out',
        ],
        cwd=sources,
        env=clean_environment(UNIREPLKNET_BUILD_OPS='1'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (sources / 'out').iterdir()
    return path


def test_wheel_is_for_every_python_and_holds_the_op(wheel):
    assert '-py3-none-linux_' in wheel.name
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = [path for path in OPS.glob('csrc/**/*.*') if 'kernels_avx' not in path.name]
    files = [*OPS.glob('unireplknet_ops/**/*.py'), *OPS.glob('unireplknet_ops/tuning/*.json')]
    expected = {f'unireplknet_ops/lib/{build.CPU_LIBRARY}'}
    expected |= {f'unireplknet_ops/{path.relative_to(OPS)}' for path in sources}
    expected |= {str(path.relative_to(OPS)) for path in files}
    held = {name for name in names if '.dist-info/' not in name}
    assert held == expected


def test_wheel_loads_into_every_interpreter(wheel, tmp_path):
    install = [
        sys.executable,
        '-m',
        'pip',
        'install',
        '--quiet',
        '--no-deps',
        '--target',
        str(tmp_path),
    ]
    subprocess.run([*install, str(wheel)], check=True, env=clean_environment())
    others = os.environ.get('UNIREPLKNET_OTHER_PYTHONS', '').split(':')
    for python in [sys.executable, *filter(None, others)]:
        done = subprocess.run(
            [python, OPS / 'tests/check_wheel.py'],
            env=clean_environment(PYTHONPATH=str(tmp_path), OMP_NUM_THREADS='1'),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith('ok: ') and f'{tmp_path}/unireplknet_ops/' in done.stdout
