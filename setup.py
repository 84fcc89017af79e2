"""Install UniRepLKNet for OpenMMLab. torch and OpenMMLab are chosen by the user: see README.md.

The op's libraries are built by ops/build.py on the way: an editable installation has them in ops/lib,
a wheel in unireplknet_mm/ops/lib. They are tied to no Python and, from torch 2.10 on, to no torch, so
the wheel is tagged py3-none-PLATFORM (py3-none-any when it holds no library).
"""

import importlib.util
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

from setuptools import Command, find_packages, setup
from setuptools.command.build import build as Build

try:
    from setuptools.command.bdist_wheel import bdist_wheel as BdistWheel
except ImportError:
    raise SystemExit('setuptools is too old: pip install "setuptools>=70.1,<82"') from None

ROOT = Path(__file__).resolve().parent
MINIMUM_TORCH = (2, 10)


def read_version() -> str:
    text = (ROOT / 'unireplknet_mm' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '([^']+)'", text).group(1)


def check_torch() -> None:
    """Refuse a torch that is too old at install time, not at the first import."""
    try:
        installed = metadata.version('torch')
    except metadata.PackageNotFoundError:
        return  # pip installs one from install_requires
    if tuple(int(part) for part in re.findall(r'\d+', installed)[:2]) < MINIMUM_TORCH:
        minimum = '.'.join(map(str, MINIMUM_TORCH))
        raise SystemExit(
            f'unireplknet_mm needs torch >= {minimum}, found {installed}. '
            f'Upgrade with: pip install "torch>={minimum}" torchvision'
        )


def read_requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / name).read_text(encoding='utf-8').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


def load_build_module():
    """ops/build.py by its path: the package itself cannot be imported before it is installed."""
    spec = importlib.util.spec_from_file_location(
        'unireplknet_ops_build', ROOT / 'ops' / 'build.py'
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class BuildOps(Command):
    """Build the op's libraries, into the sources for an editable installation."""

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
        module = load_build_module()
        directory = ROOT / 'ops' / 'lib' if self.editable_mode else Path(self.build_base, 'ops')
        try:
            self.libraries = module.build_where_possible(directory)
        except module.BuildError as error:
            raise SystemExit(
                f'error: {error}\nUNIREPLKNET_BUILD_OPS=0 installs without the compiled op.'
            ) from None
        if self.editable_mode:
            return
        packaged = Path(self.build_lib, 'unireplknet_mm', 'ops', 'lib')
        shutil.rmtree(packaged, ignore_errors=True)  # of an earlier wheel
        packaged.mkdir(parents=True)
        for path in self.libraries or directory.glob(module.REASON):
            shutil.copy2(path, packaged)

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob('ops/csrc/**/*.*'))]


class BuildWithOps(Build):
    sub_commands = [*Build.sub_commands, ('build_ops', None)]


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
    name='unireplknet-mm',
    version=read_version(),
    description='UniRepLKNet, the large-kernel ConvNet, for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=[*find_packages(include=['unireplknet_mm', 'unireplknet_mm.*']), 'unireplknet_mm.ops'],
    package_dir={'unireplknet_mm.ops': 'ops'},
    package_data={'unireplknet_mm.ops': ['README.md', '*.sh', 'tuning/*.json', 'csrc/**/*.*']},
    cmdclass={'build': BuildWithOps, 'build_ops': BuildOps, 'bdist_wheel': PlatformWheel},
    install_requires=['torch>=2.10', 'torchvision', 'numpy', 'packaging'],
    extras_require={
        'onedl': read_requirements('onedl.txt') + read_requirements('runtime.txt'),
        'openmmlab': read_requirements('openmmlab.txt') + read_requirements('runtime.txt'),
        'demo': read_requirements('demo.txt'),
    },
)
