"""Random images with the annotations that the losses of each toolbox ask for, in its pipelines' form."""

from typing import Any

import numpy
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData, PixelData

from unireplknet_mm.configuration import classes_of_heads, find_dicts, type_name

OBJECTS = 4  # in an image
CLASSES = 2  # that occur, the first ones of the model


def random_batch(
    config: ConfigDict, task: str, size: tuple[int, int], batch_size: int = 2, in_channels: int = 3
) -> dict[str, list]:
    """What a data loader hands to the data preprocessor, the same at every call.

    Args:
        config: the whole config, which says what the losses need.
        task: 'det', 'seg' or 'cls'.
        size: height and width of the images.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (in_channels, *size)
    images = [
        torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        for _ in range(batch_size)
    ]
    make_sample = dict(det=_detection_sample, seg=_segmentation_sample, cls=_classification_sample)[
        task
    ]
    samples = [make_sample(config, size, i, generator) for i in range(batch_size)]
    return dict(inputs=images, data_samples=samples)


def _meta(size: tuple[int, int], index: int) -> dict[str, Any]:
    return dict(
        img_id=index,
        img_path=f'{index}.jpg',
        img_shape=size,
        ori_shape=size,
        pad_shape=size,
        batch_input_shape=size,
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        border=numpy.array([0, size[0], 0, size[1]]),  # of CenterNet's crops
    )


def _detection_sample(
    config: ConfigDict, size: tuple[int, int], index: int, generator: torch.Generator
) -> Any:
    """Boxes, a text, and masks and a semantic map where the pipelines load them."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    side = min(size)
    corners = torch.randint(0, side // 2, (OBJECTS, 2), generator=generator)
    extents = torch.randint(side // 4, side // 2, (OBJECTS, 2), generator=generator)
    boxes = torch.cat([corners, corners + extents], dim=1)
    classes = min([CLASSES, *classes_of_heads(config['model'])])
    sample = DetDataSample(
        metainfo=_meta(size, index)
        | dict(text='person. dog.', custom_entities=True)  # of models with language
    )
    labels = torch.arange(OBJECTS) % classes
    sample.gt_instances = InstanceData(bboxes=boxes.float(), labels=labels)
    if any(
        part.get('with_mask') or type_name(part) == 'LoadPanopticAnnotations'
        for part in find_dicts(config)
    ):
        masks = numpy.zeros((OBJECTS, *size), dtype=numpy.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes.tolist(), strict=True):
            mask[top:bottom, left:right] = 1
        sample.gt_instances.masks = BitmapMasks(masks, *size)
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
    )
    if 'roi_head' in config['model'] and 'rpn_head' not in config['model']:  # Fast R-CNN
        sample.proposals = InstanceData(bboxes=boxes.float(), scores=torch.ones(OBJECTS))
    semantic = _semantic_map(config, size)
    if semantic is not None:
        sample.gt_sem_seg = PixelData(sem_seg=semantic)
    return sample


def _semantic_map(config: ConfigDict, size: tuple[int, int]) -> torch.Tensor | None:
    """Labels of one class of stuff, as large as the pipeline makes them; None where nothing reads them."""
    parts = list(find_dicts(config['model']))
    if not any(part.get('num_stuff_classes') or 'semantic_head' in part for part in parts):
        return None
    things = [part['num_things_classes'] for part in parts if 'num_things_classes' in part]
    rescales = [part for part in find_dicts(config) if type_name(part) == 'SegRescale']
    ratio = rescales[0]['scale_factor'] if rescales else 1
    return torch.full((1, *(round(side * ratio) for side in size)), max(things, default=0))


def _segmentation_sample(
    config: ConfigDict, size: tuple[int, int], index: int, generator: torch.Generator
) -> Any:
    from mmseg.structures import SegDataSample

    classes = max(classes_of_heads(config['model']), default=CLASSES)
    coarse = torch.randint(0, min(classes, 4), (1, 4, 4), generator=generator)
    labels = coarse.repeat_interleave(size[0] // 4, 1).repeat_interleave(size[1] // 4, 2)
    return SegDataSample(metainfo=_meta(size, index), gt_sem_seg=PixelData(data=labels))


def _classification_sample(
    config: ConfigDict, size: tuple[int, int], index: int, generator: torch.Generator
) -> Any:
    from mmpretrain.structures import DataSample

    head = type_name(config['model']['head'])
    labels = [0, 1] if head.startswith(('MultiLabel', 'CSRA')) else index % CLASSES
    return DataSample(metainfo=_meta(size, index)).set_gt_label(labels)
