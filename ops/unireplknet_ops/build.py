"""Compile the op's two shared libraries with ninja: `python -m unireplknet_ops.build`.

    libunireplknet_ops.so        the schema and the CPU kernels, for any torch
    libunireplknet_ops_cuda.so   the CUDA kernels, where there is nvcc and torch is a CUDA build

Both use nothing but torch's stable C++ ABI as of torch 2.10 and have no Python binding, so that one
build loads into every Python and every newer torch. No GPU is needed to build. This file imports
neither torch nor the rest of the package: setup.py and the Makefile run it on its own.

How it is linked: torch's libraries are named without a path (no rpath), so the loader takes the ones
that `import torch` has loaded already. cudart is static and hidden, so the version that torch
brings does not matter. The object files of a CPU instruction set come after those that need less:
of an inline function that several of them hold, the linker keeps the first, which then runs on every
processor.

Environment: CXX, CUDACXX or CUDA_HOME choose the compilers, TORCH_CUDA_ARCH_LIST the GPU
architectures ('8.0;9.0a 10.0+PTX'), MAX_JOBS the number of parallel jobs;
UNIREPLKNET_BUILD_OPS=0|1 and UNIREPLKNET_BUILD_CUDA=0|1 switch the libraries off or make a missing
tool an error.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# A wheel carries the sources inside the package; in a checkout they lie beside it.
SOURCES = next(
    (path for path in (PACKAGE / 'csrc', PACKAGE.parent / 'csrc') if path.is_dir()),
    PACKAGE.parent / 'csrc',
)
MINIMUM_TORCH = (2, 10)
STABLE_ABI = '-DTORCH_TARGET_VERSION=0x020a000000000000'  # torch 2.10
CPU_LIBRARY = 'libunireplknet_ops.so'
CUDA_LIBRARY = 'libunireplknet_ops_cuda.so'
# Why the libraries are not there: pip shows no output of an installation that succeeds.
REASON = 'not_built.txt'

# From the least demanding instruction set to the most; see the module's docstring.
INSTRUCTION_SETS = {
    'avx2': ['-mavx2', '-mfma', '-mf16c'],
    'avx512': [
        *('-mavx2', '-mfma', '-mf16c'),
        *('-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq'),
    ],
    'avx512_bf16': [
        *('-mavx2', '-mfma', '-mf16c'),
        *('-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq', '-mavx512bf16'),
    ],
}
DEFAULT_ARCHITECTURES = ('8.0', '8.6', '8.9', '9.0a', '10.0', '12.0')
MINIMUM_ARCHITECTURE = (8, 0)


class BuildError(Exception):
    """The libraries cannot be built; the message says why and what to do, in one or two lines."""


class MissingTool(BuildError):
    """Something the build needs is not installed; without it convolutions run on F.conv2d."""


class OldTorch(MissingTool):
    """torch is older than the stable ABI that the libraries use."""


@dataclass(frozen=True)
class Torch:
    """The torch of this interpreter, read from its files."""

    directory: Path
    version: str
    cuda: str | None


@dataclass(frozen=True)
class Nvcc:
    command: list[str]
    version: str
    architectures: frozenset[tuple[int, int]]


def note(message: str) -> None:
    print(f'unireplknet_ops.build: {message}', file=sys.stderr, flush=True)


def run_tool(command: list[str], directory: Path | None = None) -> str:
    """Output of a short command, such as one that asks a compiler for its version."""
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    except OSError as error:
        raise MissingTool(f'cannot run {command[0]}: {error.strerror}') from None
    if done.returncode:
        raise BuildError(f'`{shlex.join(command)}` failed: {(done.stderr or done.stdout).strip()}')
    return done.stdout


def find_torch() -> Torch:
    """The torch that this interpreter imports; or, while pip hides it from an isolated build, has."""
    spec = importlib.util.find_spec('torch')
    if spec is not None and spec.submodule_search_locations:
        directory = Path(spec.submodule_search_locations[0])
    else:
        directory = Path(sysconfig.get_path('platlib'), 'torch')
    if not (directory / 'version.py').is_file():
        raise MissingTool(
            'the build sees no torch: install torch >= 2.10 first; if it is in another environment '
            'than the build, use pip install --no-build-isolation'
        )
    text = (directory / 'version.py').read_text(encoding='utf-8')
    version = re.search(r"__version__ = '([^']+)'", text).group(1)
    cuda = re.search(r"^cuda\b.*= '([^']+)'", text, re.MULTILINE)
    if tuple(int(part) for part in re.findall(r'\d+', version)[:2]) < MINIMUM_TORCH:
        raise OldTorch(
            f'torch {version} is too old for the op: pip install --upgrade "torch>=2.10"'
        )
    return Torch(directory, version, cuda.group(1) if cuda else None)


def command_in(variable: str) -> list[str]:
    """The words of the command that an environment variable holds; none where it is unset."""
    text = os.environ.get(variable, '')
    try:
        return shlex.split(text)
    except ValueError as error:  # such as a quotation that is not closed
        raise BuildError(f'{variable}={text} is not a command: {error}') from None


def find_compiler() -> list[str]:
    """The C++ compiler as a command: $CXX, or the first of g++, c++ and clang++."""
    chosen = command_in('CXX')
    if chosen:
        if shutil.which(chosen[0]) is None:
            raise MissingTool(f'CXX={os.environ["CXX"]}: there is no such C++ compiler')
        return chosen
    for name in ('g++', 'c++', 'clang++'):
        if shutil.which(name):
            return [name]
    raise MissingTool(
        'no C++ compiler found: install g++ (Debian, Ubuntu: apt-get install g++; Fedora, RHEL: '
        'dnf install gcc-c++; conda: conda install gxx), or set CXX'
    )


def find_ninja() -> list[str]:
    if shutil.which('ninja'):
        return ['ninja']
    if importlib.util.find_spec('ninja'):
        return [sys.executable, '-m', 'ninja']
    raise MissingTool('ninja not found: pip install ninja')


def find_nvcc() -> Nvcc:
    home = os.environ.get('CUDA_HOME')  # a folder, in whose name a space is a space
    chosen = {'CUDACXX': command_in('CUDACXX'), 'CUDA_HOME': [f'{home}/bin/nvcc'] if home else []}
    for variable, command in chosen.items():
        if command:
            if shutil.which(command[0]) is None:
                raise MissingTool(
                    f'{variable}={os.environ[variable]}: there is no nvcc at {command[0]}'
                )
            break
    else:
        default = '/usr/local/cuda/bin/nvcc'
        command = [shutil.which('nvcc') or shutil.which(default) or '']
        if not command[0]:
            raise MissingTool(
                'nvcc not found: install the CUDA toolkit (conda: conda install cuda-nvcc '
                'cuda-cudart-static), or set CUDA_HOME'
            )
    version = re.search(r'release (\d+\.\d+)', run_tool([*command, '--version']))
    known = re.findall(r'compute_(\d+)(\d)\b', run_tool([*command, '--list-gpu-arch']))
    return Nvcc(
        command,
        version.group(1) if version else 'unknown',
        frozenset((int(major), int(minor)) for major, minor in known),
    )


def wanted_nvcc(wanted: bool | None, torch: Torch) -> Nvcc | None:
    """The nvcc to build the CUDA library with, or None to leave that library out.

    wanted None: where nvcc and a torch for the same CUDA major version are there.
    """
    if wanted is False or not sorted(SOURCES.glob('*/cuda/*.cu')):
        return None
    try:
        if torch.cuda is None:
            raise MissingTool(
                f'torch {torch.version} is a CPU build: install a CUDA build of torch'
            )
        nvcc = find_nvcc()
        if nvcc.version.split('.')[0] != torch.cuda.split('.')[0]:
            reason = f'nvcc is of CUDA {nvcc.version}, torch {torch.version} of CUDA {torch.cuda}'
            if not wanted:
                raise MissingTool(f'{reason}; UNIREPLKNET_BUILD_CUDA=1 builds all the same')
            note(f'warning: {reason}: the library may ask for another driver than torch does')
    except MissingTool as missing:
        if wanted:
            raise
        if torch.cuda is not None:
            note(f'CUDA kernels are left out: {missing}')
        return None
    return nvcc


def parse_architectures(text: str | None, known: frozenset[tuple[int, int]]) -> list[str]:
    """nvcc's -gencode flags for a TORCH_CUDA_ARCH_LIST, or for the default where text is empty.

    Each entry gives machine code for that architecture, '+PTX' adds PTX, which newer GPUs compile for
    themselves. The default ends with the PTX of its oldest, which serves every GPU that none of its
    machine code does, such as 11.0: the kernels use nothing newer. Architectures before 8.0, which
    they do not support, are left out.
    """

    def version(entry: str) -> tuple[int, int]:
        major, minor = re.match(r'(\d+)\.(\d)', entry).groups()
        return int(major), int(minor)

    def flag(entry: str, kind: str) -> str:
        number = entry.removesuffix('+PTX').replace('.', '')
        return f'-gencode=arch=compute_{number},code={kind}_{number}'

    if text is None or not text.strip():
        entries = [entry for entry in DEFAULT_ARCHITECTURES if version(entry) in known]
        # PTX of an architecture with a suffix serves no other one.
        ptx = [entry.rstrip('a') for entry in entries[:1]]
    else:
        entries = text.replace(';', ' ').split()
        for entry in entries:
            if not re.fullmatch(r'\d+\.\d[af]?(\+PTX)?', entry):
                raise BuildError(
                    f"TORCH_CUDA_ARCH_LIST: '{entry}' is not an architecture: "
                    "write numbers as in '8.0;9.0a 10.0+PTX'"
                )
        old = [entry for entry in entries if version(entry) < MINIMUM_ARCHITECTURE]
        if old:
            note(
                f'TORCH_CUDA_ARCH_LIST: {" ".join(old)} is left out: the kernels need 8.0 or newer'
            )
        entries = [entry for entry in entries if entry not in old]
        unknown = [entry for entry in entries if version(entry) not in known]
        if unknown:
            raise BuildError(f'TORCH_CUDA_ARCH_LIST: this nvcc does not know {" ".join(unknown)}')
        ptx = [entry for entry in entries if entry.endswith('+PTX')]
    if not entries:
        raise BuildError(
            f'TORCH_CUDA_ARCH_LIST={text}: no architecture from 8.0 on is left'
            if text
            else 'this nvcc knows no GPU architecture from 8.0 on: install CUDA 12 or newer'
        )
    machine_code = [flag(entry, 'sm') for entry in entries]
    return list(dict.fromkeys(machine_code + [flag(entry, 'compute') for entry in ptx]))


def cpu_units(compiler: list[str]) -> list[tuple[Path, list[str]]]:
    """Sources of the CPU library with the flags of each, in the order in which they are linked."""
    plain = sorted(SOURCES.glob('*/*.cpp')) + sorted(SOURCES.glob('*/cpu/*.cpp'))
    special = []
    macros = []
    on_x86 = run_tool([*compiler, '-dumpmachine']).startswith(('x86_64', 'amd64'))
    for name, flags in INSTRUCTION_SETS.items():
        sources = [source for source in plain if source.name == f'kernels_{name}.cpp']
        plain = [source for source in plain if source not in sources]
        if sources and on_x86 and knows_flags(compiler, flags):
            special += [(source, flags) for source in sources]
            macros.append(f'-DUNIREPLKNET_HAVE_{name.upper()}')
    return [(source, macros) for source in plain] + special


def knows_flags(compiler: list[str], flags: list[str]) -> bool:
    command = [*compiler, *flags, '-x', 'c++', '-E', os.devnull, '-o', os.devnull]
    return subprocess.run(command, capture_output=True).returncode == 0


def ninja_text(text: str) -> str:
    return text.replace('$', '$$')


def ninja_path(path: Path) -> str:
    return re.sub(r'([$ :])', r'$\1', str(path))


def shell(*arguments: str | Path) -> str:
    """A command line for ninja; $in and $out may stand in it."""
    words = (str(argument) for argument in arguments)
    return ' '.join(
        word if word in ('$in', '$out', '$out.d') else ninja_text(shlex.quote(word))
        for word in words
    )


class Graph:
    """The text of build.ninja. Each edge has a rule of its own: the flags differ by source."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.text = 'ninja_required_version = 1.5\n'
        self.rules = 0

    def add(self, output: Path, inputs: list[Path], command: str, *, depfile: bool = False) -> Path:
        rule = f'rule{self.rules}'
        self.rules += 1
        self.text += f'\nrule {rule}\n  command = {command}\n  description = {output.name}\n'
        if depfile:
            self.text += '  depfile = $out.d\n  deps = gcc\n'
        names = ' '.join(map(ninja_path, inputs))
        self.text += f'build {ninja_path(output)}: {rule} {names}\n'
        return output

    def compile(self, source: Path, compiler: list[str], flags: list[str | Path]) -> Path:
        name = '_'.join(source.relative_to(SOURCES).parts)
        # -MMD leaves torch's headers out: its version stands in the command.
        command = shell(*compiler, *flags, '-MMD', '-MF', '$out.d', '-c', '$in', '-o', '$out')
        return self.add(self.directory / f'{name}.o', [source], command, depfile=True)

    def link(self, output: Path, objects: list[Path], linker: list[str], flags: list[str]) -> Path:
        # A process that has the old library loaded keeps it: the new one takes over its name.
        temporary = output.with_name(f'.{output.name}.new')
        command = shell(*linker, '-shared', '-o', temporary, '$in', *flags)
        return self.add(output, objects, f'{command} && mv -f {shell(temporary)} $out')


def write_graph(
    directory: Path,
    output: Path,
    torch: Torch,
    compiler: list[str],
    nvcc: Nvcc | None,
    sanitize: bool,
) -> list[Path]:
    """Write build.ninja and return the libraries it makes."""
    # The same name for every torch: one checkout then serves several environments that hold the same
    # release without compiling again.
    link = directory / 'torch'
    if not link.is_symlink() or Path(os.readlink(link)) != torch.directory:
        link.unlink(missing_ok=True)
        link.symlink_to(torch.directory)
    # Paths are relative to the folder in which ninja runs: nvcc takes a comma in one for its end.
    include = [
        '-isystem',
        f'{link.name}/include',
        STABLE_ABI,
        f'-DUNIREPLKNET_TORCH="{torch.version}"',
    ]
    # Everything is hidden, the inline functions of the standard library and cudart too: registration
    # happens while the library is loaded and needs no name.
    exports = directory / 'exports.map'
    exports.write_text('{ local: *; };\n', encoding='utf-8')
    optimize = ['-O3']
    if sanitize:
        optimize = ['-O1', '-g1', '-fno-omit-frame-pointer', '-fsanitize=address']
        # Checks as calls: written out, they take the AVX-512 kernels minutes to compile.
        outlined = ['--param=asan-instrumentation-with-call-threshold=0']
        optimize += outlined if knows_flags(compiler, outlined) else []
    hidden = ['-fvisibility=hidden', '-fvisibility-inlines-hidden']
    common = [*optimize, '-std=c++17', '-fPIC', *hidden]

    graph = Graph(directory)
    objects = [
        graph.compile(source, compiler, [*common, '-Wall', '-Wextra', *include, *flags])
        for source, flags in cpu_units(compiler)
    ]
    restrict = ['-Xlinker', f'--version-script={exports.name}', f'-L{link.name}/lib']
    flags = [*(['-fsanitize=address'] if sanitize else []), *restrict, '-ltorch_cpu']
    libraries = [graph.link(output / CPU_LIBRARY, objects, compiler, flags)]
    if nvcc:
        sources = sorted(SOURCES.glob('*/cuda/*.cu'))
        host = [word for word in compiler if not word.startswith('-')][-1]  # of 'ccache g++ -m64'
        flags = [
            *('-O3', '-std=c++17', '-DUSE_CUDA', '--expt-relaxed-constexpr', *include),
            *('-ccbin', host, '-Xcompiler', '-fPIC,-fvisibility=hidden,-Wall'),
            *('--threads', str(max(1, processors() // len(sources)))),
            *parse_architectures(os.environ.get('TORCH_CUDA_ARCH_LIST'), nvcc.architectures),
        ]
        objects = [graph.compile(source, nvcc.command, flags) for source in sources]
        linker = [*nvcc.command, '-ccbin', host, '-cudart', 'static']
        flags = [*restrict, '-ltorch_cpu', '-ltorch_cuda']
        libraries.append(graph.link(output / CUDA_LIBRARY, objects, linker, flags))
    path = directory / 'build.ninja'
    if not path.exists() or path.read_text(encoding='utf-8') != graph.text:
        path.write_text(graph.text, encoding='utf-8')
    return libraries


def processors() -> int:
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def locked(directory: Path):
    """One build at a time in a directory: several processes may start one at once."""
    import fcntl  # not on Windows, where setup.py imports this module and goes on without a library

    with (directory / 'lock').open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def switch(name: str) -> bool | None:
    """An environment variable that is 0, 1 or unset."""
    value = os.environ.get(name, '')
    if value not in ('', '0', '1'):
        raise BuildError(f'{name}={value}: set it to 0 or 1, or leave it unset')
    return None if value == '' else value == '1'


def build(
    output: str | Path | None = None,
    *,
    cuda: bool | None = None,
    sanitize: bool = False,
    jobs: int | None = None,
    verbose: bool = False,
) -> list[Path]:
    """Bring the libraries in `output` up to date and return their paths.

    output: a directory; `lib` beside this file by default. Object files lie in its
    folder `build`. cuda None: as UNIREPLKNET_BUILD_CUDA says, else where nvcc and a CUDA torch are; an
    earlier CUDA library stays where they are not, and is deleted by False.
    sanitize: with AddressSanitizer, CPU only; by default in its folder `sanitize`.
    Raises MissingTool for a missing tool, BuildError when a compiler fails (its output is shown) or
    the directory cannot be written.
    """
    if not sys.platform.startswith('linux'):
        raise MissingTool(f'the op is built on Linux only, not on {sys.platform}')
    if cuda is None:
        cuda = switch('UNIREPLKNET_BUILD_CUDA')
    switched_off = cuda is False
    if sanitize:
        cuda = False
    if jobs is None:
        text = os.environ.get('MAX_JOBS', '')
        jobs = int(text) if text.isdecimal() and int(text) else processors()
    default = PACKAGE / 'lib' / 'sanitize' if sanitize else PACKAGE / 'lib'
    output = Path(output or default).resolve()
    torch = find_torch()
    compiler = find_compiler()
    ninja = find_ninja()
    nvcc = wanted_nvcc(cuda, torch)
    directory = output / 'build'
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory):
            libraries = write_graph(directory, output, torch, compiler, nvcc, sanitize)
            run_ninja([*ninja, '-j', str(jobs)], directory, libraries, verbose)
            (output / REASON).unlink(missing_ok=True)
            if switched_off and (output / CUDA_LIBRARY).exists():
                (output / CUDA_LIBRARY).unlink()
                note(f'deleted {output / CUDA_LIBRARY}: the CUDA kernels are switched off')
    except OSError as error:  # no permission, no space, a read-only file system, a file as a folder
        raise BuildError(
            f'cannot write {error.filename or output}: {error.strerror}: choose a directory with '
            '--output and name it in UNIREPLKNET_OPS_LIB_DIR when running'
        ) from None
    return libraries


def run_ninja(command: list[str], directory: Path, libraries: list[Path], verbose: bool) -> None:
    if 'no work to do' in run_tool([*command, '-n'], directory):
        return
    names = ' and '.join(library.name for library in libraries)
    note(f'building {names} in {libraries[0].parent}')
    command = [*command, *(['-v'] if verbose else [])]
    # Standard output is for the libraries' paths.
    if subprocess.run(command, cwd=directory, stdout=2).returncode:
        way_out = '; UNIREPLKNET_BUILD_CUDA=0 leaves the CUDA kernels out' if libraries[1:] else ''
        raise BuildError(f'the failing command and its messages stand above{way_out}')


def build_where_possible(output: str | Path | None = None, **options) -> list[Path]:
    """What an installation does: a missing tool is a warning, unless UNIREPLKNET_BUILD_OPS is 1.

    The warning is left in `output` as well, in not_built.txt. UNIREPLKNET_BUILD_OPS=0 builds nothing.
    Returns the libraries built, [] for none. A compiler that fails is an error in any case.
    """
    wanted = switch('UNIREPLKNET_BUILD_OPS')
    output = Path(output or PACKAGE / 'lib').resolve()
    if wanted is False:
        return []
    try:
        return build(output, **options)
    except MissingTool as missing:
        if wanted:
            raise
        note(f'warning: {missing}')
        note('warning: without the compiled op, large-kernel convolutions run on F.conv2d')
        with contextlib.suppress(OSError):  # the warning has been given; the file only repeats it
            output.mkdir(parents=True, exist_ok=True)
            (output / REASON).write_text(f'{missing}\n', encoding='utf-8')
        return []


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m unireplknet_ops.build', description=__doc__.split('\n')[0]
    )
    parser.add_argument(
        '--output', metavar='DIR', help='where to put the libraries (lib beside this file)'
    )
    parser.add_argument(
        '--cuda',
        action=argparse.BooleanOptionalAction,
        help='build the CUDA kernels: by default where nvcc and a CUDA torch are found',
    )
    parser.add_argument('--sanitize', action='store_true', help='with AddressSanitizer, CPU only')
    parser.add_argument('--jobs', type=int, metavar='N', help='parallel jobs (one a processor)')
    parser.add_argument('--verbose', action='store_true', help='show every command')
    parser.add_argument(
        '--where-possible', action='store_true', help='only warn when a tool is missing'
    )
    options = vars(parser.parse_args(arguments))
    function = build_where_possible if options.pop('where_possible') else build
    try:
        libraries = function(**options)
    except BuildError as error:
        note(f'error: {error}')
        return 1
    if function is build:
        print(*libraries, sep='\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
