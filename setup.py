"""Install UniRepLKNet for OpenMMLab. torch and OpenMMLab are chosen by the user: see README.md."""

import re
from importlib import metadata
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
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


check_torch()
setup(
    name='unireplknet-mm',
    version=read_version(),
    description='UniRepLKNet, the large-kernel ConvNet, for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['unireplknet_mm', 'unireplknet_mm.*']),
    install_requires=['torch>=2.10', 'torchvision', 'numpy', 'packaging'],
    extras_require={
        'onedl': read_requirements('onedl.txt') + read_requirements('runtime.txt'),
        'openmmlab': read_requirements('openmmlab.txt') + read_requirements('runtime.txt'),
        'demo': read_requirements('demo.txt'),
    },
)
