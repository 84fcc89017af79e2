"""Install the op. It needs torch, which is chosen by the user, and nothing else: see README.md.

The libraries are built by unireplknet_ops/build.py on the way, into `lib` beside it. They are tied to no
Python and, from torch 2.10 on, to no torch, so the wheel is tagged py3-none-PLATFORM (py3-none-any when it
holds no library). It carries the sources too, for `python -m unireplknet_ops.build`.
"""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

from setuptools import Command, find_packages, setup
from setuptools.command.build import build as Build

try:
    from setuptools.command.bdist_wheel import bdist_wheel as BdistWheel
except ImportError:
    raise SystemExit('setuptools is too old: pip install "setuptools>=70.1,<82"') from None

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / 'unireplknet_ops'


def read_version() -> str:
    text = (PACKAGE / 'version.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '([^']+)'", text).group(1)


def load_build_module():
    """build.py by its path: the package itself cannot be imported before it is installed."""
    spec = importlib.util.spec_from_file_location('unireplknet_ops_build', PACKAGE / 'build.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


BUILD = load_build_module()


def check_torch() -> None:
    """Refuse a torch that is too old at install time, not at the first import."""
    try:
        BUILD.find_torch()
    except BUILD.OldTorch as error:
        raise SystemExit(f'error: {error}') from None
    except BUILD.MissingTool:
        pass  # pip installs one from install_requires


class BuildOps(Command):
    """Build the libraries, into the sources for an editable installation."""

    description = "build the op's shared libraries with ninja"
    user_options = []
    editable_mode = False

    def initialize_options(self) -> None:
        self.build_lib = None
        self.build_base = None
        self.libraries = []

    def finalize_options(self) -> None:
        self.set_undefined_options(
            'build', ('build_lib', 'build_lib'), ('build_base', 'build_base')
        )

    def run(self) -> None:
        directory = PACKAGE / 'lib' if self.editable_mode else Path(self.build_base, 'ops')
        try:
            self.libraries = BUILD.build_where_possible(directory)
        except BUILD.BuildError as error:
            raise SystemExit(
                f'error: {error}\nUNIREPLKNET_BUILD_OPS=0 installs without the compiled op.'
            ) from None
        if self.editable_mode:
            return
        package = Path(self.build_lib, PACKAGE.name)
        shutil.copytree(ROOT / 'csrc', package / 'csrc')
        (package / 'lib').mkdir()
        for path in self.libraries or directory.glob(BUILD.REASON):
            shutil.copy2(path, package / 'lib')

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob('csrc/**/*.*'))]


class BuildWithOps(Build):
    sub_commands = [*Build.sub_commands, ('build_ops', None)]

    def run(self) -> None:
        shutil.rmtree(
            self.build_lib, ignore_errors=True
        )  # of an earlier wheel, with files of its own
        super().run()


class PlatformWheel(BdistWheel):
    """A wheel for one platform and every Python."""

    def run(self) -> None:
        self.run_command('build')
        libraries = self.get_finalized_command('build_ops').libraries
        self.root_is_pure = not libraries
        self.distribution.has_ext_modules = lambda: bool(libraries)
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        return 'py3', 'none', super().get_tag()[2]


check_torch()
setup(
    name='unireplknet-ops',
    version=read_version(),
    description='Depthwise convolution for large kernels in PyTorch, on CPU and CUDA',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['unireplknet_ops', 'unireplknet_ops.*']),
    package_data={'unireplknet_ops': ['tuning/*.json']},
    cmdclass={'build': BuildWithOps, 'build_ops': BuildOps, 'bdist_wheel': PlatformWheel},
    install_requires=['torch>=2.10'],
)
