"""Pascal VOC: lists of names, and a JPEG image and an XML file of boxes for each name."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from unireplknet_mm.configuration import classes_of_datasets, classes_of_heads
from unireplknet_mm.datasets.drawing import DIGIT_NAMES, Scene, write_image
from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.drawn import (
    DrawnImage,
    DrawnLayout,
    class_names,
    drawn_defaults,
)

LIST = 'ImageSets/Main/{split}.txt'
ANNOTATIONS = 'Annotations'
IMAGES = 'JPEGImages'


class Voc(DrawnLayout):
    """`num_classes` counts the names of objects; those beyond ten stay unused."""

    name = 'voc'
    dataset_types = ('XMLDataset', 'VOCDataset')
    files = (LIST.format(split='{train,val}'), f'{ANNOTATIONS}/NAME.xml', f'{IMAGES}/NAME.jpg')
    defaults = drawn_defaults(size=(500, 375))

    def write_images(
        self, root: Path, drawn_images: Iterable[DrawnImage], parameters: dict[str, Any]
    ) -> None:
        for folder in (Path(LIST).parent, ANNOTATIONS, IMAGES):
            (root / folder).mkdir(parents=True)
        names: dict[str, list[str]] = {split: [] for split in SPLITS}
        for drawn in drawn_images:
            name = f'{drawn.split}_{drawn.index + 1:06d}'
            write_image(root / IMAGES / f'{name}.jpg', drawn.scene.image)
            annotation = ElementTree.ElementTree(_describe(drawn.scene, f'{name}.jpg'))
            ElementTree.indent(annotation)
            annotation.write(root / ANNOTATIONS / f'{name}.xml', encoding='utf-8')
            names[drawn.split].append(f'{name}\n')
        for split in SPLITS:
            (root / LIST.format(split=split)).write_text(''.join(names[split]), encoding='utf-8')

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        counts = classes_of_heads(model) or classes_of_datasets(datasets) or {20}
        return dict(num_classes=max(counts))

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(
            ann_file=LIST.format(split=split),
            data_prefix=dict(sub_data_root=''),
            img_subdir=IMAGES,
            ann_subdir=ANNOTATIONS,
            metainfo=dict(classes=class_names(parameters['num_classes'])),
        )


def _describe(scene: Scene, file_name: str) -> ElementTree.Element:
    """The annotation of an image. Pixels count from 1, and the last ones belong to the box."""
    annotation = ElementTree.Element('annotation')
    height, width = scene.owner.shape
    _add(annotation, filename=file_name)
    _add(ElementTree.SubElement(annotation, 'size'), width=width, height=height, depth=3)
    for index, label in enumerate(scene.labels):
        x, y, w, h = cv2.boundingRect((scene.owner == index).astype(np.uint8))
        element = ElementTree.SubElement(annotation, 'object')
        _add(element, name=DIGIT_NAMES[label], difficult=0)
        box = ElementTree.SubElement(element, 'bndbox')
        _add(box, xmin=x + 1, ymin=y + 1, xmax=x + w, ymax=y + h)
    return annotation


def _add(parent: ElementTree.Element, **texts: str | int) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = str(text)


LAYOUT = Voc()
