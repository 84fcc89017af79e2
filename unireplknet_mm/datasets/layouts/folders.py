"""Segmentation in folders: one of images, and beside it one of label maps of the same names."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unireplknet_mm.configuration import classes_of_datasets, classes_of_heads
from unireplknet_mm.datasets.drawing import draw_label_map, write_image
from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.drawn import DrawnImage, DrawnLayout, drawn_defaults
from unireplknet_mm.errors import ArgumentError

IMAGES = '{split}'
LABEL_MAPS = '{split}annot'


class Folders(DrawnLayout):
    """`num_classes` counts the digits and, after them, the background; those beyond eleven stay unused.

    Two parameters more, as mmseg's data sets have them: `ignore_index`, the label of pixels of no class;
    `reduce_zero_label`, whether 0 is that label instead, and the classes start at 1.
    """

    name = 'folders'
    dataset_types = ('BaseSegDataset',)
    files = tuple(
        f'{folder.format(split="{train,val}")}/NAME{suffix}'
        for folder, suffix in ((IMAGES, '.jpg'), (LABEL_MAPS, '.png'))
    )
    defaults = dict(
        drawn_defaults(size=(480, 360), num_classes=11),
        ignore_index=255,
        reduce_zero_label=False,
    )

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            '--ignore-index', type=int, metavar='LABEL', help='of pixels of no class (default: 255)'
        )
        parser.add_argument(
            '--reduce-zero-label',
            action='store_true',
            default=None,
            help='0 is the label of pixels of no class, and the classes start at 1',
        )

    def check(self, parameters: dict[str, Any]) -> None:
        super().check(parameters)
        num_classes, ignored = parameters['num_classes'], parameters['ignore_index']
        if num_classes < 2:
            raise ArgumentError(
                f'num_classes={num_classes} does not fit the layout folders: it has two at least, a '
                'digit and the background'
            )
        used = min(11, num_classes)
        if not (used <= ignored <= 255 or parameters['reduce_zero_label']):
            raise ArgumentError(
                f'ignore_index must be from {used}, after the labels of the classes, to 255, '
                f'not {ignored}'
            )

    def digits_to_draw(self, num_classes: int) -> Sequence[int]:
        return range(min(10, num_classes - 1))

    def write_images(
        self, root: Path, drawn_images: Iterable[DrawnImage], parameters: dict[str, Any]
    ) -> None:
        for folder in (IMAGES, LABEL_MAPS):
            for split in SPLITS:
                (root / folder.format(split=split)).mkdir()
        first_digit = 1 if parameters['reduce_zero_label'] else 0
        background = first_digit + len(self.digits_to_draw(parameters['num_classes']))
        unlabelled = 0 if parameters['reduce_zero_label'] else parameters['ignore_index']
        for drawn in drawn_images:
            label_map = draw_label_map(drawn.scene, first_digit, background, unlabelled)
            name = f'{drawn.index + 1:06d}'
            write_image(root / IMAGES.format(split=drawn.split) / f'{name}.jpg', drawn.scene.image)
            write_image(root / LABEL_MAPS.format(split=drawn.split) / f'{name}.png', label_map)

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        counts = classes_of_heads(model) | classes_of_datasets(datasets)
        labels = {
            (dataset.get('ignore_index', 255), bool(dataset.get('reduce_zero_label')))
            for dataset in datasets
        }
        if len(labels) > 1:
            raise ArgumentError(
                'the data sets of the config differ in ignore_index or reduce_zero_label; the demo '
                'data of all of them are the same'
            )
        ignore_index, reduce_zero_label = labels.pop()
        return dict(
            num_classes=min(counts, default=11),
            ignore_index=ignore_index,
            reduce_zero_label=reduce_zero_label,
        )

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(
            ann_file='',
            data_prefix=dict(
                img_path=IMAGES.format(split=split), seg_map_path=LABEL_MAPS.format(split=split)
            ),
            img_suffix='.jpg',
            seg_map_suffix='.png',
        )


LAYOUT = Folders()
