"""Say whether this interpreter has what the suite needs; exit 1 and say what is missing if not."""

import importlib.metadata
import importlib.util
import sys

REQUIRED = {
    'torch': 'torch>=2.10',
    'torchvision': 'torchvision',
    'mmengine': 'onedl-mmengine',
    'mmcv': 'onedl-mmcv',
    'mmdet': 'onedl-mmdetection',
    'mmseg': 'onedl-mmsegmentation',
    'mmpretrain': 'onedl-mmpretrain',
    'sklearn': 'scikit-learn',
    'skimage': 'scikit-image',
    'pycocotools': 'pycocotools',
    'av': 'av',
    'pytest': 'pytest',
}


def main() -> int:
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        print(f'{sys.executable} is Python {sys.version.split()[0]}: 3.10 to 3.13 is supported')
        return 1
    torch_version = importlib.util.find_spec('torch') and importlib.metadata.version('torch')
    if torch_version and tuple(map(int, torch_version.split('.')[:2])) < (2, 10):
        print(f'{sys.executable} has torch {torch_version}: 2.10 or newer is needed')
        return 1
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        packages = ' '.join(REQUIRED[name] for name in missing)
        print(f'{sys.executable} lacks {", ".join(missing)}: install {packages}')
        print('or leave UNIREPLKNET_PYTHON unset, and make creates .venv with everything in it')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
