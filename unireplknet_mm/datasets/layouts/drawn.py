"""What the layouts share whose demo data are handwritten digits on photographs."""

import argparse
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unireplknet_mm.datasets.drawing import (
    DIGIT_NAMES,
    Scene,
    draw_scene,
    load_photographs,
    load_scans,
)
from unireplknet_mm.datasets.layouts.base import SPLITS, Layout, Progress
from unireplknet_mm.errors import ArgumentError

MASK_FORMATS = ('polygon', 'rle')
MIN_DIGIT_PIXELS = 8


@dataclass(frozen=True)
class DrawnImage:
    """A scene and its place in the data set: number `index` of a split, from 0."""

    split: str
    index: int
    scene: Scene


def drawn_defaults(
    size: tuple[int, int],
    digits_per_image: tuple[int, int] = (2, 6),
    digit_size: tuple[float, float] = (0.14, 0.40),
    num_classes: int = 10,
) -> dict[str, Any]:
    """The `defaults` of a layout of drawn images.

    Args:
        size: (width, height) in pixels, typical of the real data set.
        digits_per_image: least and largest number of digits on an image.
        digit_size: least and largest height of a digit as fractions of the image's shorter side.
        num_classes: what it counts is up to the layout.
    """
    return dict(
        size=size,
        seed=0,
        num_classes=num_classes,
        digits_per_image=digits_per_image,
        digit_size=digit_size,
        mask_format='polygon',  # of COCO; the manifests of the other layouts have it, too
    )


def class_names(num_classes: int) -> tuple[str, ...]:
    """Names of classes: 'zero' to 'nine', then 'unused_10' and so on."""
    unused = tuple(f'unused_{index}' for index in range(10, num_classes))
    return DIGIT_NAMES[:num_classes] + unused


class DrawnLayout(Layout):
    """Demo data of drawn images.

    Image i of a split depends on the seed and on i alone, so a larger data set starts with the images of a
    smaller one. The annotations do not depend on the version of OpenCV.

    Attributes:
        most_digits: the largest number of digits on an image.
    """

    samples = 'images'
    version = 2
    most_digits = 100

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        def default(name: str) -> str:
            value = self.defaults[name]
            return ' '.join(map(str, value)) if isinstance(value, tuple) else str(value)

        parser.add_argument(
            '--size', type=int, nargs=2, metavar=('W', 'H'), help=f'default: {default("size")}'
        )
        parser.add_argument('--seed', type=int, metavar='S', help=f'default: {default("seed")}')
        parser.add_argument(
            '--num-classes', type=int, metavar='K', help=f'default: {default("num_classes")}'
        )
        parser.add_argument(
            '--digits-per-image',
            type=int,
            nargs=2,
            metavar=('LEAST', 'MOST'),
            help=f'default: {default("digits_per_image")}',
        )
        parser.add_argument(
            '--digit-size',
            type=float,
            nargs=2,
            metavar=('LEAST', 'MOST'),
            help="height of a digit over the image's shorter side "
            f'(default: {default("digit_size")})',
        )
        parser.add_argument(
            '--mask-format', choices=MASK_FORMATS, help=f'of COCO (default: {MASK_FORMATS[0]})'
        )

    def check(self, parameters: dict[str, Any]) -> None:
        if parameters['num_classes'] < 1:
            raise ArgumentError(f'num_classes must be at least 1, not {parameters["num_classes"]}')
        if parameters['seed'] < 0:
            raise ArgumentError(f'seed must not be negative, not {parameters["seed"]}')
        if parameters['mask_format'] not in MASK_FORMATS:
            raise ArgumentError(
                f"mask_format must be 'polygon' or 'rle', not {parameters['mask_format']!r}"
            )
        _check_range('digits_per_image', parameters['digits_per_image'], 1, self.most_digits)
        _check_range('digit_size', parameters['digit_size'], 0.01, 0.85)
        if len(parameters['size']) != 2:
            raise ArgumentError(f'size must be width and height, not {parameters["size"]}')
        width, height = parameters['size']
        smallest = min(width, height) * parameters['digit_size'][0]
        if smallest < MIN_DIGIT_PIXELS:
            needed = int(np.ceil(MIN_DIGIT_PIXELS / parameters['digit_size'][0]))
            raise ArgumentError(
                f'size {width}x{height} is too small: the smallest digit would be {smallest:.1f} '
                f'pixels high; use at least {needed}x{needed} or a larger digit_size'
            )

    def check_sources(self) -> None:
        for split in SPLITS:
            load_photographs(split)
            load_scans(split)

    def write_demo(self, root: Path, parameters: dict[str, Any], progress: Progress) -> dict:
        used = {split: dict(photographs=set(), scans=set()) for split in SPLITS}
        self.write_images(root, self._draw(parameters, used, progress), parameters)
        return {
            split: {kind: sorted(values) for kind, values in kinds.items()}
            for split, kinds in used.items()
        }

    def digits_to_draw(self, num_classes: int) -> Sequence[int]:
        """The digits that occur in a data set."""
        return range(min(10, num_classes))

    def choose_digits(self, index: int, digits: Sequence[int]) -> Sequence[int]:
        """Those among which the digits of image `index` of a split are drawn."""
        return digits

    @abstractmethod
    def write_images(
        self, root: Path, drawn_images: Iterable[DrawnImage], parameters: dict[str, Any]
    ) -> None:
        """Write images, drawn one by one as they are taken, and their annotations to `root`."""

    def _draw(
        self, parameters: dict[str, Any], used: dict[str, dict[str, set]], progress: Progress
    ) -> Iterator[DrawnImage]:
        """Draw the images one by one and note in `used` what they were made of."""
        counts = dict(train=parameters['images'], val=parameters['val_images'])
        planned = [(split, index) for split in SPLITS for index in range(counts[split])]
        digits = self.digits_to_draw(parameters['num_classes'])
        for split, index in progress(planned):
            rng = np.random.default_rng([parameters['seed'], SPLITS.index(split), index])
            scene = draw_scene(
                rng,
                split,
                tuple(parameters['size']),
                parameters['digits_per_image'],
                parameters['digit_size'],
                self.choose_digits(index, digits),
            )
            used[split]['photographs'].add(scene.photograph)
            used[split]['scans'].update(scene.scans)
            yield DrawnImage(split, index, scene)


def _check_range(name: str, value: Sequence[float], least: float, largest: float) -> None:
    if not (len(value) == 2 and least <= value[0] <= value[1] <= largest):
        raise ArgumentError(
            f'{name} must be two numbers, the smaller first, from {least} to {largest}, '
            f'not {tuple(value)}'
        )
