"""Cityscapes: a folder of images and one of label maps a split, both with a folder a city."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unireplknet_mm.configuration import classes_of_heads
from unireplknet_mm.datasets.drawing import draw_label_map, write_image
from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.drawn import DrawnImage, DrawnLayout, drawn_defaults
from unireplknet_mm.errors import ArgumentError

IMAGES = 'leftImg8bit/{split}'
LABEL_MAPS = 'gtFine/{split}'
CITY = 'demo'
BACKGROUND = 10  # 0 to 9 are the digits
UNLABELLED = 255


class Cityscapes(DrawnLayout):
    """All ten digits and the background occur, whatever the number of classes of a head is."""

    name = 'cityscapes'
    dataset_types = ('CityscapesDataset',)
    files = (
        'leftImg8bit/{train,val}/CITY/*_leftImg8bit.png',
        'gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png (of cityscapesScripts)',
    )
    title = 'Cityscapes'
    source = 'https://www.cityscapes-dataset.com/downloads/'
    defaults = drawn_defaults(size=(2048, 1024))

    def check(self, parameters: dict[str, Any]) -> None:
        super().check(parameters)
        if parameters['num_classes'] != 10:
            raise ArgumentError(
                f'num_classes={parameters["num_classes"]} does not fit the layout cityscapes: it always '
                'has the ten digits and the background, whatever the number of classes of a head is'
            )

    def write_images(
        self, root: Path, drawn_images: Iterable[DrawnImage], parameters: dict[str, Any]
    ) -> None:
        for kind in (IMAGES, LABEL_MAPS):
            for split in SPLITS:
                (root / kind.format(split=split) / CITY).mkdir(parents=True)
        for drawn in drawn_images:
            label_map = draw_label_map(
                drawn.scene, first_digit=0, background=BACKGROUND, unlabelled=UNLABELLED
            )
            images, label_maps = (
                root / kind.format(split=drawn.split) / CITY for kind in (IMAGES, LABEL_MAPS)
            )
            stem = f'{CITY}_{drawn.index + 1:06d}_000019'
            write_image(images / f'{stem}_leftImg8bit.png', drawn.scene.image)
            write_image(label_maps / f'{stem}_gtFine_labelTrainIds.png', label_map)

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        least = min(classes_of_heads(model), default=BACKGROUND + 1)
        if least <= BACKGROUND:
            raise ArgumentError(
                f'the Cityscapes demo data has {BACKGROUND + 1} classes (ten digits and the '
                f'background), but a head of the config has only {least}'
            )
        return {}

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        prefix = dict(
            img_path=IMAGES.format(split=split), seg_map_path=LABEL_MAPS.format(split=split)
        )
        return dict(ann_file='', data_prefix=prefix)


LAYOUT = Cityscapes()
