"""Suppression of overlapping boxes for a whole batch, with results of a fixed size.

mmdet selects, drops and cuts lists whose lengths depend on the image. Here nothing is dropped: what does
not count has a score of 0, comes last in every ranking, and can neither suppress a box nor be told from
padding.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision  # noqa: F401  registers `torchvision::nms`
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unireplknet_mm.export.errors import ExportError


class Suppression(NamedTuple):
    """What a `test_cfg` says of non-maximum suppression.

    Attributes:
        iou_threshold: a box goes when its IoU with a better one is above it.
        across_classes: whether boxes of different classes suppress each other.
    """

    iou_threshold: float
    across_classes: bool

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> 'Suppression':
        """Read mmcv's `nms=dict(type='nms', ...)`.

        Raises:
            ExportError: it is another kind, such as soft NMS, which ONNX has no operator for.
        """
        unknown = set(settings) - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
        if settings.get('type', 'nms') != 'nms' or unknown:
            raise ExportError(
                f'nms={dict(settings)} cannot be exported: only type=nms with iou_threshold and '
                'class_agnostic can (--cfg-options model.test_cfg...).'
            )
        # mmcv holds the threshold in float32: an IoU of exactly 0.3 is not above it.
        threshold = torch.tensor(settings['iou_threshold'], dtype=torch.float32).item()
        return cls(threshold, bool(settings.get('class_agnostic', False)))

    def __call__(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
        """The scores (N, T) of what is kept, 0 for what is suppressed or had 0.

        Args:
            boxes: (N, T, 4), x1, y1, x2, y2, not negative.
            scores: (N, T), at least 0.
            groups: (T,) or (N, T), integers: level or class. Boxes of different ones leave each other alone.
        """
        shifted = _apart(boxes, groups * 0 if self.across_classes else groups)
        boxes, flat = _with_two_more(shifted.reshape(-1, 4), scores.reshape(-1))
        kept = torch.ops.torchvision.nms(boxes, flat, self.iou_threshold)
        return _only(kept, flat).reshape(scores.shape)

    def sparse(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
        """The same, where most scores are 0: only the others are sorted and compared."""
        groups = groups * 0 if self.across_classes else groups
        boxes, flat = _with_two_more(_apart(boxes, groups).reshape(-1, 4), scores.reshape(-1))
        chosen = flat.nonzero()[:, 0]
        kept = torch.ops.torchvision.nms(boxes[chosen], flat[chosen], self.iou_threshold)
        return _only(chosen[kept], flat).reshape(scores.shape)


class StableSorts(TorchFunctionMode):
    """Sorting that keeps the order of equal values, as that of the runtimes does.

    mmdet's does not: it is chance which of two boxes of the same score suppresses the other. Small or briefly
    trained networks have many such scores.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.sort, torch.Tensor.sort):
            return _sort(*args, **kwargs)
        if function in (torch.topk, torch.Tensor.topk):
            return _topk(*args, **kwargs)
        return function(*args, **kwargs)


def _sort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    return torch.sort(x, stable=True, dim=dim, descending=descending)


def _topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    values, indices = torch.sort(x, stable=True, dim=dim, descending=largest)
    return torch.return_types.topk((values.narrow(dim, 0, k), indices.narrow(dim, 0, k)))


def _apart(boxes: Tensor, groups: Tensor) -> Tensor:
    """Boxes moved so that those of different groups or images do not overlap.

    Groups move along both axes, as in mmcv; images along one only, so that coordinates, and with them the
    error of rounding, do not grow with the batch times the classes.
    """
    step = boxes.max() + 1
    outside = boxes.min().clamp(max=0)  # of heads that do not cut boxes to the picture, as YOLOX's
    images = torch.arange(boxes.shape[0], device=boxes.device).to(boxes.dtype)[:, None]
    groups = groups.to(boxes.dtype).expand(boxes.shape[:2]) * step
    shift = torch.stack((groups, groups + images * (step - outside)), dim=-1)
    return boxes + torch.cat((shift, shift), dim=-1)


def _with_two_more(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (M, 4) that are not negative, scores (M,), and two behind them that no other touches.

    Compiled graphs count on at least two being kept, also of a picture on which nothing is found.
    """
    more = boxes.new_tensor([[-4, -4, -3, -3], [-2, -2, -1, -1]])
    return torch.cat((boxes, more)), torch.cat((scores, scores.new_ones(2)))


def _only(kept: Tensor, scores: Tensor) -> Tensor:
    """The scores of what is kept, 0 for the others, without the last two (`_with_two_more`)."""
    return torch.zeros_like(scores).scatter(0, kept, scores[kept])[:-2]


def best(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The `number` best of scores (N, T) and their indices, (N, number) each; 0 where there are no more."""
    if not isinstance(scores.shape[1], int) or scores.shape[1] < number:
        scores = F.pad(scores, (0, number))
    return scores.topk(number, dim=1)


def take(values: Tensor, indices: Tensor) -> Tensor:
    """`values` (N, T, ...) at `indices` (N, k), of which those beyond T may be anything: (N, k, ...)."""
    indices = indices.clamp(max=values.shape[1] - 1)
    shape = (*indices.shape, *values.shape[2:])
    return values.gather(
        1, indices.reshape(*indices.shape, *[1] * (values.dim() - 2)).expand(shape)
    )


def without_small(boxes: Tensor, scores: Tensor, smallest: float) -> Tensor:
    """Scores with 0 for boxes that are not wider and higher than `smallest`; a negative one leaves all."""
    if smallest < 0:
        return scores
    size = boxes[..., 2:] - boxes[..., :2]
    return scores * (size > smallest).all(-1)


def clip(boxes: Tensor, bounds: Tensor) -> Tensor:
    """Boxes (..., 4) cut to 0 and `bounds` (4,): width, height, width, height."""
    return torch.minimum(boxes.clamp(min=0), bounds)
