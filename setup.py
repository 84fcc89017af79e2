"""Install UniRepLKNet for OpenMMLab. OpenMMLab is chosen by the user: see README.md.

The op it runs on is a distribution of its own, in `ops/`: `pip install -e ./ops -e .` installs both.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    text = (ROOT / 'unireplknet_mm' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"__version__ = '([^']+)'", text).group(1)


def read_requirements(name: str) -> list[str]:
    lines = (ROOT / 'requirements' / name).read_text(encoding='utf-8').splitlines()
    return [line for line in lines if line and not line.startswith('#')]


setup(
    name='unireplknet-mm',
    version=read_version(),
    description='UniRepLKNet, the large-kernel ConvNet, for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['unireplknet_mm', 'unireplknet_mm.*']),
    install_requires=['torch>=2.10', 'torchvision', 'numpy', 'packaging', 'unireplknet-ops'],
    extras_require={
        'demo': read_requirements('demo.txt'),
        'benchmark': read_requirements('benchmark.txt'),
        'hub': ['huggingface_hub>=0.34', 'safetensors'],
        'timm': ['timm>=1.0.9'],
    },
)
