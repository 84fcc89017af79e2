"""COCO: a folder of images and a JSON file of boxes and masks a split."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config

from unireplknet_mm.configuration import classes_of_datasets, classes_of_heads, find_dicts
from unireplknet_mm.datasets.drawing import write_image
from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.drawn import (
    DrawnImage,
    DrawnLayout,
    class_names,
    drawn_defaults,
)
from unireplknet_mm.datasets.outlines import mask_to_polygons, mask_to_rle

IMAGES = '{split}2017'
ANNOTATIONS = 'annotations/instances_{split}2017.json'


class Coco(DrawnLayout):
    """`num_classes` counts the categories; those beyond ten stay unused, so the data fit a head of 80."""

    name = 'coco'
    dataset_types = ('CocoDataset',)
    files = (ANNOTATIONS.format(split='{train,val}'), IMAGES.format(split='{train,val}') + '/*.jpg')
    title = 'COCO 2017'
    source = 'https://cocodataset.org/#download'
    defaults = drawn_defaults(size=(640, 480))

    def write_images(
        self, root: Path, drawn_images: Iterable[DrawnImage], parameters: dict[str, Any]
    ) -> None:
        encode_mask = dict(polygon=mask_to_polygons, rle=mask_to_rle)[parameters['mask_format']]
        categories = [
            dict(id=index + 1, name=name, supercategory='digit')
            for index, name in enumerate(class_names(parameters['num_classes']))
        ]
        info = dict(description='handwritten digits on photographs', version=str(self.version))
        documents = {
            split: dict(info=info, licenses=[], images=[], annotations=[], categories=categories)
            for split in SPLITS
        }
        for split in SPLITS:
            (root / IMAGES.format(split=split)).mkdir()
        for drawn in drawn_images:
            document = documents[drawn.split]
            image_id = drawn.index + 1
            file_name = f'{image_id:012d}.jpg'
            write_image(root / IMAGES.format(split=drawn.split) / file_name, drawn.scene.image)
            height, width = drawn.scene.owner.shape
            document['images'].append(
                dict(
                    id=image_id,
                    file_name=file_name,
                    width=width,
                    height=height,
                    photograph=drawn.scene.photograph,
                )
            )
            for index, (label, scan) in enumerate(
                zip(drawn.scene.labels, drawn.scene.scans, strict=True)
            ):
                mask = drawn.scene.owner == index
                x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
                document['annotations'].append(
                    dict(
                        id=len(document['annotations']) + 1,
                        image_id=image_id,
                        category_id=label + 1,
                        bbox=[float(x), float(y), float(w), float(h)],
                        area=float(mask.sum()),
                        segmentation=encode_mask(mask),
                        iscrowd=0,
                        scan=scan,
                    )
                )
        for split, document in documents.items():
            path = root / ANNOTATIONS.format(split=split)
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(document), encoding='utf-8')

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        counts = classes_of_heads(model) or classes_of_datasets(datasets) or {80}
        return dict(num_classes=max(counts))

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(
            ann_file=ANNOTATIONS.format(split=split),
            data_prefix=dict(img=f'{IMAGES.format(split=split)}/'),
            metainfo=dict(classes=class_names(parameters['num_classes'])),
        )

    def point_config(self, cfg: Config, root: Path) -> list[str]:
        """The evaluators' annotations, and no score threshold.

        After two iterations no object scores above a threshold, and mmdet's `CocoMetric` calls that an
        error instead of an AP of 0.
        """
        for key in ('val_evaluator', 'test_evaluator'):
            for evaluator in find_dicts(cfg.get(key)):
                if 'ann_file' in evaluator:
                    evaluator['ann_file'] = str(root / ANNOTATIONS.format(split='val'))
        thresholds = [config for config in find_dicts(cfg.get('model')) if 'score_thr' in config]
        for config in thresholds:
            config['score_thr'] = 0.0
        if not thresholds:
            return []
        return [
            'Score thresholds are set to 0, so that there are detections to evaluate however short '
            'the training is.'
        ]


LAYOUT = Coco()
