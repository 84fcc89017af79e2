"""The models of the paper as the suite offers them: config, weights and figures, of `model-index.yml`.

Weights that have a name in `weights.PUBLISHED` go by it, so that they are fetched as everywhere else: cache,
mirrors, offline mode.
"""

import functools
from pathlib import Path
from typing import NamedTuple

from mmengine.fileio import load

from unireplknet_mm.errors import UserError
from unireplknet_mm.weights.published import PUBLISHED

INDEX = 'model-index.yml'
SCOPES = dict(cls='mmpretrain', det='mmdet', seg='mmseg')


class MissingConfigsError(UserError, FileNotFoundError):
    """The configs are not where an installation or a checkout has them."""


class ZooModel(NamedTuple):
    """A model with a config and figures of the paper.

    Args:
        name: of its config, without `.py`.
        config: the file.
        weights: a name of `PUBLISHED`, or the address of a page to download them from by hand.
        figures: of the paper, by the index's names: 'Top 1 Accuracy', 'box AP', 'mask AP', 'mIoU', ...
        parameters, flops: of the paper, in units; FLOPs are multiply-adds at `size`.
        size: height and width of the input.
    """

    name: str
    config: Path
    weights: str
    figures: dict[str, float]
    parameters: float
    flops: float
    size: tuple[int, int]

    @property
    def task(self) -> str:
        """'cls', 'det' or 'seg'."""
        return self.config.parent.name

    @property
    def scope(self) -> str:
        """The toolbox that the config is for."""
        return SCOPES[self.task]

    @property
    def aliases(self) -> list[str]:
        """Other names: that of the weights, where it is not the config's."""
        return [self.weights] if self.weights in PUBLISHED and self.weights != self.name else []


def home() -> Path:
    """The folder with configs, tools and index: `.mim` of an installed package, else the checkout.

    Raises:
        MissingConfigsError: they are in neither.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / '.mim', package.parent):
        if (folder / INDEX).is_file():
            return folder
    raise MissingConfigsError(
        f'{INDEX} and the configs are not beside {package}, nor in it: install the wheel, or the checkout '
        'with pip install -e'
    )


def models() -> list[ZooModel]:
    """Every model of the index, in its order.

    Raises:
        MissingConfigsError: as in `home`.
    """
    return _read(home())


def find(name: str) -> ZooModel | None:
    """The model of that name, in any case, or of weights of that name; None where there is none."""
    for model in models():
        if name.lower() in (model.name, *model.aliases):
            return model
    return None


@functools.cache
def _read(folder: Path) -> list[ZooModel]:
    names = {weights.url: name for name, weights in PUBLISHED.items()}
    found = []
    for entry in load(folder / INDEX)['Models']:
        width, height = (int(side) for side in entry['Metadata']['Input size'].split('x'))
        found.append(
            ZooModel(
                name=entry['Name'],
                config=folder / entry['Config'],
                weights=names.get(entry['Weights'], entry['Weights']),
                figures={
                    name: value
                    for result in entry['Results']
                    for name, value in result['Metrics'].items()
                },
                parameters=entry['Metadata']['Parameters'],
                flops=entry['Metadata']['FLOPs'],
                size=(height, width),
            )
        )
    return found
