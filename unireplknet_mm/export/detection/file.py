"""Detectors: images to boxes, scores, classes and masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireplknet_mm.export.deployable import Arrays, Deployable, inherits, register
from unireplknet_mm.export.detection.letterbox import PipelinePadding, Placement, fit, whole
from unireplknet_mm.export.detection.one_stage import OneStage
from unireplknet_mm.export.detection.queries import Queries
from unireplknet_mm.export.detection.results import NOTHING, Detections, differences, paste
from unireplknet_mm.export.detection.suppression import StableSorts
from unireplknet_mm.export.detection.two_stage import TwoStage
from unireplknet_mm.export.errors import ExportError
from unireplknet_mm.export.images import ImagePreprocessing, random_images

DECODERS = (TwoStage, OneStage, Queries)

# What may differ from mmdet's own results: detections without a counterpart, pixels (hundredths of boxes that
# are larger than 100), probabilities, 1 - IoU.
LIMITS = dict(
    fp32=dict(detections=0, boxes=1e-3, scores=1e-3, masks=1e-2),
    fp16=dict(detections=1, boxes=2.0, scores=2e-2, masks=5e-2),
    bf16=dict(detections=3, boxes=8.0, scores=1e-1, masks=2e-1),
    int8=dict(detections=10, boxes=16.0, scores=2e-1, masks=5e-1),
)
# Pixels that boxes may be off by where queries have ranks: of random weights, exchanges move them by 0.01.
RANKED_BOXES = 5e-2


@register
class DetectorFile(Deployable):
    """mmdet's detectors: `images` -> `boxes`, `scores`, `labels` and, of those that have them, `masks`.

    Args:
        model: an mmdet detector.
        pasted_masks: whether masks are those of the image's pixels, not of 28×28 cells of a box.
        letterbox: the (height, width) that pictures of any size are fitted into; boxes and pasted masks
            are those of the picture. None: images come in the size that the model computes in.
        padding: of a letterbox, the settings of the `Pad` of the test pipeline; None: the data preprocessor
            alone pads.

    Raises:
        ExportError: the detector, a part of it or the padding is none of those that are known here.
    """

    task = 'object detection'
    usual_size = (800, 1344)
    # They compute coordinates, too, which must not be rounded to a 255th of the picture.
    exact_operators = (
        'Add',
        'Subtract',
        'Multiply',
        'Divide',
        'Sqrt',
        'Maximum',
        'Minimum',
        'Gather',
        'GatherElements',
    )

    def __init__(
        self,
        model: nn.Module,
        pasted_masks: bool = False,
        letterbox: Sequence[int] | None = None,
        padding: Mapping[str, Any] | None = None,
    ):
        super().__init__(model)
        self.preprocessing = ImagePreprocessing(model.data_preprocessor, self.channels)
        self.decoder = _find_decoder(model)
        self.pasted_masks = pasted_masks
        self.letterbox = tuple(letterbox) if letterbox else None
        self.padding = PipelinePadding(padding, letterbox, self.channels) if padding else None
        self.output_names = ('boxes', 'scores', 'labels')
        if self.decoder.gives_masks:
            self.output_names += ('masks',)
        elif pasted_masks:
            raise ExportError(
                f'{type(model).__name__} has no masks to paste: leave out --paste-masks.'
            )
        if self.letterbox and not self.decoder.takes_padding:
            raise ExportError(
                f'{type(model).__name__} attends to padding unless it knows its extent, which differs from '
                'picture to picture: export without --letterbox.'
            )
        self.dynamic = getattr(self.decoder, 'dynamic', type(self).dynamic)
        self.dtype = torch.float32

    @classmethod
    def takes(cls, model: nn.Module) -> bool:
        return inherits(model, 'BaseDetector')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x, placement = self.prepare(images)
        maps = [level.float() for level in self.model.extract_feat(x.to(self.dtype))]
        found = self.decoder(tuple(maps), placement.bounds, x.shape[-2:])
        found = found._replace(boxes=found.boxes / placement.scale)
        if found.masks is None:
            return found[:3]
        if self.pasted_masks:
            found = found._replace(masks=self._paste(found, *images.shape[-2:]))
        return tuple(found)

    def prepare(self, images: Tensor) -> tuple[Tensor, Placement]:
        """What the backbone takes, and where in it the pictures are."""
        if self.letterbox is None:
            x = self.preprocessing(images)
            if not self.decoder.takes_padding and x.shape != images.shape:
                divisor = self.preprocessing.pad_divisor
                raise ExportError(
                    f'the model takes heights and widths that are multiples of {divisor} only.'
                )
            return x, whole(images)
        fitted, placement = fit(images.float(), *self.letterbox)
        if self.padding is not None:
            swapped, placement = self.padding(self.preprocessing.swap(fitted), placement)
            fitted = self.preprocessing.swap(swapped)
        x = self.preprocessing(fitted)
        height, width = self.letterbox
        padded = torch.where(
            placement.is_padding, self.preprocessing.pad_value, x[..., :height, :width]
        )
        below, right = x.shape[-2] - height, x.shape[-1] - width
        x = F.pad(padded, (0, right, 0, below), value=self.preprocessing.pad_value)
        return x, placement

    def _paste(self, found: Detections, height: int, width: int) -> Tensor:
        masks = paste(found.masks, found.boxes, height, width) >= self.decoder.mask_threshold
        return masks & (found.scores > 0)[..., None, None]

    def to_precision(self, dtype: torch.dtype) -> None:
        """Backbone and neck; heads compute in float32, since they compare and subtract coordinates."""
        for part in ('backbone', 'neck'):
            if getattr(self.model, part, None) is not None:
                getattr(self.model, part).to(dtype)
        self.dtype = dtype

    def example(self, batch_size: int, shape: Sequence[int]) -> Tensor:
        return random_images(batch_size, shape)

    def from_pipeline(self, inputs: Tensor) -> Tensor:
        return self.preprocessing.from_pipeline(inputs)

    def kept_size(self, width: int, height: int) -> tuple[int, int]:
        """That of a landscape, padded as the model pads: 1333×800 are a height of 800 and a width of 1344."""
        divisor = self.preprocessing.pad_divisor
        sides = sorted(-(-side // divisor) * divisor for side in (width, height))
        return sides[0], sides[1]

    def describe(self) -> dict[str, Any]:
        detections = f'{self.decoder.number} detections an image, best first'
        outputs = dict(
            boxes=f'(N, D, 4), x1, y1, x2, y2 in pixels of the image; {detections}, then zeros',
            scores='(N, D), then 0',
            labels='(N, D), the number of the class, then -1',
        )
        if self.pasted_masks:
            outputs['masks'] = '(N, D, height, width), bool'
        elif self.decoder.gives_masks:
            threshold = self.decoder.mask_threshold
            outputs['masks'] = (
                '(N, D, 28, 28), probabilities in cells of the box; at its size, '
                f'what is {threshold:g} or more is the object'
            )
        described = dict(input=self.preprocessing.describe(), outputs=outputs)
        if self.letterbox is not None:
            height, width = self.letterbox
            described['input']['size'] = f'any; resized to fit into {height}×{width} in the file'
        return described

    @torch.no_grad()
    def reference(self, inputs: Tensor) -> dict[str, np.ndarray]:
        """Masks are bool, of the image's pixels. Of equal scores the first is the better one.

        `pixel`, (N,), is how many pixels of the image are one of the model's input.
        """
        with StableSorts():
            samples = self._predict_letterboxed(inputs) if self.letterbox else self._predict(inputs)
        sides = inputs.shape[-2:]
        pixel = max(side / new for side, new in zip(sides, self.letterbox or sides, strict=True))
        instances = [sample.pred_instances for sample in samples]
        return dict(
            _as_arrays(instances, self.decoder.number, self.output_names),
            pixel=np.full(len(inputs), pixel),
        )

    def _predict(self, images: Tensor) -> list[Any]:
        pictures = self.preprocessing.to_pipeline(images)
        metas = self._metas(images.shape[-2:], images.shape[-2:], (1.0, 1.0))
        return self._predict_batch(pictures, _samples(metas, len(images)))

    def _predict_letterboxed(self, images: Tensor) -> list[Any]:
        """Padded by pipeline and data preprocessor, in a batch whose last picture fills the letterbox."""
        fitted, placement = fit(images.float(), *self.letterbox)
        width, height = (int(value) for value in placement.bounds[:2])
        pictures = self.preprocessing.to_pipeline(fitted[..., :height, :width])
        if self.padding is not None:
            pictures = [self.padding.by_pipeline(picture) for picture in pictures]
        metas = self._metas(pictures[0].shape[-2:], images.shape[-2:], placement.scale[:2].tolist())
        full = torch.zeros(images.shape[1], *self.letterbox)
        samples = _samples(metas, len(images) + 1)
        return self._predict_batch([*pictures, full], samples, len(images))

    def _predict_batch(
        self, pictures: list[Tensor], samples: list[Any], number: int | None = None
    ) -> list[Any]:
        """mmdet's results of the first `number` pictures."""
        batch = self.model.data_preprocessor(dict(inputs=pictures, data_samples=samples))
        return self.model.predict(batch['inputs'][:number], batch['data_samples'][:number])

    def _metas(
        self, shape: Sequence[int], original: Sequence[int], scale: Sequence[float]
    ) -> dict[str, Any]:
        return dict(img_shape=tuple(shape), ori_shape=tuple(original), scale_factor=tuple(scale))

    def differences(self, reference: Arrays, exported: Arrays) -> dict[str, float]:
        shapes = [(len(reference['scores']), self.decoder.number), exported['scores'].shape]
        if shapes[0] != shapes[1]:
            return dict.fromkeys(self.limits('fp32'), float('inf'))
        if self.decoder.gives_masks and not self.pasted_masks:
            height, width = reference['masks'].shape[-2:]
            cells, boxes = (torch.from_numpy(exported[name]) for name in ('masks', 'boxes'))
            pasted = [
                self._pasted(*of_image, height, width)
                for of_image in zip(cells, boxes, strict=True)
            ]
            exported = dict(exported, masks=torch.stack(pasted).numpy())
        return differences(
            reference, exported, self.decoder.score_threshold, self.limits('fp32')['scores']
        )

    def count_found(self, reference: Arrays) -> int:
        return int((reference['scores'] > 0).sum())

    def limits(self, precision: str) -> dict[str, float]:
        limits = dict(LIMITS[precision])
        if not self.decoder.gives_masks:
            limits.pop('masks')
        if getattr(self.decoder, 'queries_have_ranks', False):
            limits['boxes'] = max(limits['boxes'], RANKED_BOXES)
        return limits

    def fill(self, outputs: Arrays, samples: list[Any]) -> list[Any]:
        """Boxes and masks in the size of the picture as it was read."""
        from mmengine.structures import InstanceData

        for index, sample in enumerate(samples):
            found = {name: torch.from_numpy(outputs[name][index]) for name in self.output_names}
            found = {name: values[found['scores'] > 0] for name, values in found.items()}
            height, width = sample.ori_shape
            stretched = [
                old / new for old, new in zip((width, height), sample.file_size[::-1], strict=True)
            ]
            boxes = found['boxes'] * torch.tensor(stretched).repeat(2)
            instances = InstanceData(bboxes=boxes, scores=found['scores'], labels=found['labels'])
            if self.decoder.gives_masks:
                instances.masks = self._masks_of_picture(found['masks'], boxes, height, width)
            sample.pred_instances = instances
        return samples

    def _masks_of_picture(self, masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
        if self.pasted_masks:
            enlarged = F.interpolate(masks[None].float(), (height, width), mode='nearest')
            return enlarged[0] > 0
        return self._pasted(masks, boxes, height, width)

    def _pasted(self, masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
        """(D, 28, 28) and (D, 4) -> (D, height, width), bool, one by one: photographs have many pixels."""
        result = torch.zeros(len(boxes), height, width, dtype=torch.bool)
        for mask, box, pasted in zip(masks, boxes, result, strict=True):
            pasted.copy_(paste(mask, box, height, width) >= self.decoder.mask_threshold)
        return result


def _find_decoder(model: nn.Module) -> nn.Module:
    """The function behind the neck.

    Raises:
        ExportError: none is known for a model.
    """
    for decoder in DECODERS:
        if decoder.takes(model):
            return decoder(model)
    raise ExportError(
        f'a {type(model).__name__} cannot be exported: detectors of two stages, of a dense head and of '
        'queries with boxes can.'
    )


def _samples(metas: dict[str, Any], count: int) -> list[Any]:
    from mmdet.structures import DetDataSample

    return [DetDataSample(metainfo=metas) for _ in range(count)]


def _as_arrays(images: list[Any], number: int, names: Sequence[str]) -> dict[str, np.ndarray]:
    """mmdet's instances of each image as arrays of one length."""
    attributes = dict(zip(names, ('bboxes', 'scores', 'labels', 'masks'), strict=False))
    return {
        name: np.stack(
            [
                _padded(image[attribute].cpu().numpy(), number, NOTHING if name == 'labels' else 0)
                for image in images
            ]
        )
        for name, attribute in attributes.items()
    }


def _padded(values: np.ndarray, number: int, value: int) -> np.ndarray:
    result = np.full((number, *values.shape[1:]), value, dtype=values.dtype)
    result[: len(values)] = values[:number]
    return result
