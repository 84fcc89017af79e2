"""Within an environment of test_mim.sh: what is imported is what was installed, whole, and models have names.

python scripts/check_mim.py wheel|editable CHECKOUT
"""

import sys
from importlib.metadata import distribution
from pathlib import Path

import unireplknet_mm
import unireplknet_mm.integrations.openmmlab
from unireplknet_mm import zoo


def read_tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and '__pycache__' not in path.parts
    }


def main() -> None:
    kind, checkout = sys.argv[1], Path(sys.argv[2]).resolve()
    package = Path(unireplknet_mm.__file__).resolve().parent
    assert (package.parent == checkout) == (kind == 'editable'), package
    home = zoo.home()
    assert home == package / '.mim', home
    for name in ('configs', 'tools'):
        assert read_tree((home / name).resolve()) == read_tree(checkout / name), name
    assert not distribution('unireplknet-mm').entry_points, 'a script is the first file of the list'

    from mmpretrain import get_model, list_models

    names = [model.name for model in zoo.models() if model.task == 'cls']
    assert set(names) <= set(list_models('unireplknet')), names
    assert len(get_model('unireplknet_a_in1k').backbone.stages) == 4
    print(f'{kind}: {home}, {len(zoo.models())} models')


if __name__ == '__main__':
    main()
