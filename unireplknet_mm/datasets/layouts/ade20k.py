"""ADE20K: a folder of images and one of label maps a split."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unireplknet_mm.configuration import classes_of_heads
from unireplknet_mm.datasets.drawing import draw_label_map, write_image
from unireplknet_mm.datasets.layouts.drawn import DrawnImage, DrawnLayout, drawn_defaults
from unireplknet_mm.errors import ArgumentError

FOLDERS = dict(train='training', val='validation')
IMAGES = 'images/{folder}'
LABEL_MAPS = 'annotations/{folder}'
BACKGROUND = 11  # 0 is unlabelled, 1 to 10 are the digits


class Ade20k(DrawnLayout):
    """All ten digits and the background occur, whatever the number of classes of a head is."""

    name = 'ade20k'
    dataset_types = ('ADE20KDataset',)
    files = ('{images,annotations}/{training,validation}/',)
    title = 'ADE20K'
    source = 'http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip'
    defaults = drawn_defaults(size=(683, 512))

    def check(self, parameters: dict[str, Any]) -> None:
        super().check(parameters)
        if parameters['num_classes'] != 10:
            raise ArgumentError(
                f'num_classes={parameters["num_classes"]} does not fit the layout ade20k: it always '
                'has the ten digits and the background, whatever the number of classes of a head is'
            )

    def write_images(
        self, root: Path, drawn_images: Iterable[DrawnImage], parameters: dict[str, Any]
    ) -> None:
        for kind in (IMAGES, LABEL_MAPS):
            for folder in FOLDERS.values():
                (root / kind.format(folder=folder)).mkdir(parents=True)
        for drawn in drawn_images:
            scene, folder = drawn.scene, FOLDERS[drawn.split]
            label_map = draw_label_map(scene, first_digit=1, background=BACKGROUND, unlabelled=0)
            stem = f'ADE_{drawn.split}_{drawn.index + 1:08d}'
            write_image(root / IMAGES.format(folder=folder) / f'{stem}.jpg', scene.image)
            write_image(root / LABEL_MAPS.format(folder=folder) / f'{stem}.png', label_map)

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        least = min(classes_of_heads(model), default=BACKGROUND)
        if least < BACKGROUND:
            raise ArgumentError(
                f'the ADE20K demo data has {BACKGROUND} classes (ten digits and the '
                f'background), but a head of the config has only {least}'
            )
        return {}

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        folder = FOLDERS[split]
        prefix = dict(
            img_path=IMAGES.format(folder=folder), seg_map_path=LABEL_MAPS.format(folder=folder)
        )
        return dict(ann_file='', data_prefix=prefix)


LAYOUT = Ade20k()
