"""Install UniRepLKNet for OpenMMLab. OpenMMLab is chosen by the user: see README.md.

The op it runs on is a distribution of its own, in `ops/`: `pip install -e ./ops -e .` installs both.
"""

import os
import re
import shutil
import warnings
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
CARRIED = ('configs', 'tools', 'model-index.yml')
# MIM and MMEngine look into the package. onedl-mim 0.5 takes for its root the folder of the first file that
# the installation lists, in alphabetical order: of a distribution with the package's name that would be its
# unireplknet_mm-VERSION.dist-info. The second folder comes before that. (So would a console script.)
MIM_FOLDERS = ('unireplknet_mm', 'unireplknet_mim')


def read_version() -> str:
    text = (ROOT / 'unireplknet_mm' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '([^']+)'", text).group(1)


def read_requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / name).read_text(encoding='utf-8').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


class BuildWithConfigs(build_py):
    """Puts configs, tools and index into the wheel; in an editable install links them, for the package."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            link_carried(ROOT / MIM_FOLDERS[0] / '.mim')
            return
        for folder in MIM_FOLDERS:
            copy_carried(Path(self.build_lib) / folder / '.mim')


def copy_carried(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in CARRIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '*.py[co]')
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, target / name)


def link_carried(target: Path) -> None:
    """Relative links, which a moved checkout keeps; where there can be none, as on some Windows, nothing."""
    target.mkdir(exist_ok=True)
    for name in CARRIED:
        link = target / name
        if not link.is_symlink():
            try:
                link.symlink_to(os.path.join('..', '..', name), (ROOT / name).is_dir())
            except OSError as error:
                warnings.warn(
                    f'no link {link} ({error}): give mim the path of a config', stacklevel=2
                )


setup(
    name='unireplknet-mm',
    version=read_version(),
    description='UniRepLKNet, the large-kernel ConvNet, for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['unireplknet_mm', 'unireplknet_mm.*']),
    cmdclass=dict(build_py=BuildWithConfigs),
    install_requires=['torch>=2.10', 'torchvision', 'numpy', 'packaging', 'unireplknet-ops>=0.1.0'],
    extras_require={
        'demo': read_requirements('demo.txt'),
        'benchmark': read_requirements('benchmark.txt'),
        'hub': ['huggingface_hub>=0.34', 'safetensors'],
        'timm': ['timm>=1.0.9'],
        'audio': ['scipy>=1.11', 'soundfile>=0.13', 'torchaudio>=2.10'],
        'point_cloud': ['h5py>=3.12'],
        'onnx': ['onnx>=1.19', 'onnxscript>=0.7', 'onnxruntime>=1.23'],
        'openvino': ['onnx>=1.19', 'onnxscript>=0.7', 'openvino>=2026.0', 'nncf>=3.0'],
        'time_series': ['pandas>=2.2'],
        'video': ['av>=17'],
    },
)
