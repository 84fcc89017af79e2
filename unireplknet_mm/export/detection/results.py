"""Detections of a fixed number, and how two sets of them are compared."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unireplknet_mm.export.deployable import Arrays

# Pixels. A box's size is the product of an exponential: its error of rounding grows with it.
EXACT = 100
NOTHING = -1  # the label of what is no detection


class Detections(NamedTuple):
    """The best detections of every image, best first.

    Attributes:
        boxes: (N, D, 4), x1, y1, x2, y2 in pixels; zeros where there are no more.
        scores: (N, D); 0 where there are no more.
        labels: (N, D), int64; -1 where there are no more.
        masks: (N, D, 28, 28) probabilities, the box cut into 28×28 cells, or (N, D, H, W) of the whole image;
            None of detectors without masks.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None

    @classmethod
    def of(cls, boxes: Tensor, scores: Tensor, labels: Tensor) -> 'Detections':
        """Blank what has no score."""
        exists = scores > 0
        return cls(boxes * exists[..., None], scores, torch.where(exists, labels, NOTHING))


def paste(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Probabilities of boxes' cells, (N, D, h, w), as those of the image's pixels, (N, D, height, width).

    Bilinear between the centres of cells, 0 outside, as in mmdet; since that is separable, it is a
    product with a matrix on either side, and nothing of the size of the image but the result is stored.
    """
    columns = _weights(boxes[..., 0], boxes[..., 2], width, masks.shape[-1])
    rows = _weights(boxes[..., 1], boxes[..., 3], height, masks.shape[-2])
    return rows @ masks @ columns.transpose(-1, -2)


def _weights(start: Tensor, end: Tensor, pixels: int, cells: int) -> Tensor:
    """How much of each cell a pixel takes, (..., pixels, cells)."""
    centres = torch.arange(pixels, device=start.device, dtype=start.dtype) + 0.5
    extent = (end - start).clamp(min=1e-6)[..., None]
    position = (centres - start[..., None]) / extent * cells - 0.5
    cell = torch.arange(cells, device=start.device, dtype=start.dtype)
    return (1 - (position[..., None] - cell).abs()).clamp(min=0)


def differences(
    reference: Arrays, exported: Arrays, score_threshold: float, tolerance: float
) -> dict[str, float]:
    """How far detections are from others, matched one to one.

    A detection whose score is within `tolerance` of what cuts detections off (the threshold, or the last
    of a full list) may be missing.

    Returns:
        `detections`: how many have no counterpart; `boxes`: the largest difference of a coordinate, in
        pixels, or those of the model's input where these are larger (`pixel` of the reference), of boxes with
        a side of more than `EXACT` pixels in the share `1 / EXACT` of that; `scores`; `masks`: the largest
        1 - IoU but for one pixel, which may be on the very threshold.
    """
    worst = dict(detections=0.0, boxes=0.0, scores=0.0)
    if 'masks' in reference:
        worst['masks'] = 0.0
    for image in range(len(reference['scores'])):
        first = {name: values[image] for name, values in reference.items()}
        second = {name: values[image] for name, values in exported.items()}
        pairs = match(first, second)
        worst['detections'] += _missing(first, pairs[:, 0], score_threshold, tolerance)
        worst['detections'] += _missing(second, pairs[:, 1], score_threshold, tolerance)
        for one, other in _without_chance(first, second, pairs, score_threshold, tolerance):
            size = first['boxes'][one, 2:] - first['boxes'][one, :2]
            pixel = max(1.0, first.get('pixel', 1.0), size.max() / EXACT)
            for name, unit in (('boxes', pixel), ('scores', 1.0)):
                difference = np.abs(first[name][one] - second[name][other]).max() / unit
                worst[name] = max(worst[name], float(difference))
            if (
                'masks' in worst and (size > 0).all()
            ):  # without an extent, mmdet's masks are arbitrary
                masks = first['masks'][one], second['masks'][other]
                worst['masks'] = max(worst['masks'], mask_difference(*masks))
    return worst


def match(first: Arrays, second: Arrays) -> np.ndarray:
    """Pairs (k, 2) of indices of an image's detections: of the same class, the most alike first."""
    margin = np.array([-0.5, -0.5, 0.5, 0.5])  # in pixels: boxes without an extent overlap as well
    overlaps = box_iou(first['boxes'] + margin, second['boxes'] + margin)
    overlaps[first['labels'][:, None] != second['labels'][None]] = 0
    overlaps[first['scores'] <= 0] = 0
    overlaps[:, second['scores'] <= 0] = 0
    # Thin boxes side by side overlap about as much as a box and its counterpart: the score tells.
    likeness = overlaps - np.abs(first['scores'][:, None] - second['scores'][None])
    likeness[overlaps <= 0.5] = -np.inf
    pairs = []
    while likeness.size and likeness.max() > -np.inf:
        one, other = np.unravel_index(likeness.argmax(), likeness.shape)
        pairs.append((one, other))
        likeness[one], likeness[:, other] = -np.inf, -np.inf
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _missing(image: Arrays, matched: np.ndarray, score_threshold: float, tolerance: float) -> int:
    alone = image['scores'] > _cut(image, score_threshold) + tolerance
    alone[matched] = False
    return int(alone.sum())


def _cut(image: Arrays, score_threshold: float) -> float:
    """The score below which there are no detections."""
    return max(score_threshold, float(image['scores'].min(initial=1.0)))


def _without_chance(
    first: Arrays, second: Arrays, pairs: np.ndarray, score_threshold: float, tolerance: float
) -> Iterator[tuple[int, int]]:
    """Pairs but for those of neighbours that were left over, since the counterparts of both were cut off."""
    for one, other in pairs:
        is_certain = (
            first['scores'][one] > _cut(first, score_threshold) + tolerance
            or second['scores'][other] > _cut(second, score_threshold) + tolerance
        )
        overlap = box_iou(first['boxes'][one : one + 1], second['boxes'][other : other + 1])
        if is_certain or overlap.item() > 0.9:
            yield one, other


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, 4) and (m, 4) -> (n, m)."""
    first, second = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    size = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = size.clip(min=0).prod(-1)
    area = (first[..., 2:] - first[..., :2]).prod(-1) + (second[..., 2:] - second[..., :2]).prod(-1)
    return shared / np.maximum(area - shared, 1e-12)


def mask_difference(first: np.ndarray, second: np.ndarray) -> float:
    """1 - IoU of two masks of the same size, without a pixel, which may be on the very threshold."""
    differing = int((first ^ second).sum())
    return max(differing - 1, 0) / max(int((first | second).sum()), 1)
