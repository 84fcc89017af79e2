"""Dense heads: RetinaNet, ATSS, FCOS, GFL, RTMDet, YOLOX and others, with a fixed number of candidates.

How mmdet's heads turn maps into boxes differs in a few methods, most of which they inherit; `READERS` is
keyed by the classes that these methods are written in, so that a head with another rule is refused, not
misread.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unireplknet_mm.export.deployable import inherits, written_in
from unireplknet_mm.export.detection.results import Detections
from unireplknet_mm.export.detection.suppression import (
    Suppression,
    best,
    clip,
    take,
    without_small,
)
from unireplknet_mm.export.detection.two_stage import by_position, decode
from unireplknet_mm.export.errors import ExportError

RULES = ('predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
# Of heads whose configs name no number, since mmdet gives everything that suppression leaves.
USUAL_NUMBER = 300


class Candidates(NamedTuple):
    """What one level, or all together, may have found.

    Attributes:
        scores: (N, P, classes) probabilities, to be compared with the threshold.
        deltas: (N, P, k), what the boxes are decoded from.
        priors: (P, k), anchors or points.
        factors: (N, P), what the scores are multiplied with behind the threshold; None for 1.
    """

    scores: Tensor
    deltas: Tensor
    priors: Tensor
    factors: Tensor | None = None


class OneStage(nn.Module):
    """Maps of the neck -> detections, of an mmdet `SingleStageDetector` with a dense head.

    Raises:
        ExportError: the head decodes by a rule that is not known here.
    """

    gives_masks = False
    takes_padding = True

    def __init__(self, model: nn.Module):
        super().__init__()
        self.head = model.bbox_head
        rules = tuple(written_in(self.head, name) for name in RULES)
        if rules not in READERS:
            raise ExportError(
                f'{type(self.head).__name__} cannot be exported: it finds boxes by a rule of its own '
                f'({", ".join(sorted(set(rules) - {None, "BaseDenseHead"})) or "unknown"}).'
            )
        self.read, self.decode = READERS[rules]
        settings = self.head.test_cfg
        self.score_threshold = float(settings.get('score_thr', 0))
        self.number_before = int(settings.get('nms_pre', -1))
        self.number = int(settings.get('max_per_img', USUAL_NUMBER))
        self.smallest = float(settings.get('min_bbox_size', -1))
        self.suppression = Suppression.of(settings.nms)

    @staticmethod
    def takes(model: nn.Module) -> bool:
        return inherits(model, 'SingleStageDetector') and hasattr(model, 'bbox_head')

    def forward(
        self, maps: tuple[Tensor, ...], bounds: Tensor, size: tuple[int, int]
    ) -> Detections:
        levels = [self._best_of_level(level) for level in self.read(self.head, maps)]
        scores, labels, deltas, priors = (
            torch.cat(parts, dim=1) for parts in zip(*levels, strict=True)
        )
        boxes = self.decode(self.head, priors, deltas)
        if getattr(getattr(self.head, 'bbox_coder', None), 'clip_border', False):
            boxes = clip(boxes, bounds)
        scores = without_small(boxes, scores, self.smallest)
        scores, chosen = best(self.suppression.sparse(boxes, scores, labels), self.number)
        return Detections.of(take(boxes, chosen), scores, take(labels, chosen))

    def _best_of_level(self, level: Candidates) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        n, positions, classes = level.scores.shape
        flat = level.scores.reshape(n, -1)
        number = positions * classes
        if self.number_before > 0:
            number = torch.sym_min(number, self.number_before)
        scores, chosen = (flat * (flat > self.score_threshold)).topk(number, dim=1)
        position, labels = chosen // classes, chosen % classes
        if level.factors is not None:
            scores = scores * take(level.factors, position)
        return scores, labels, take(level.deltas, position), level.priors[position]


def _levels(head: nn.Module, maps: tuple[Tensor, ...]) -> list[Candidates]:
    """mmdet's `BaseDenseHead`: classes, deltas and, of some heads, centerness or the like."""
    scores, deltas, *factors = head(maps)
    factors = factors[0] if factors else [None] * len(scores)
    levels = []
    for level_scores, level_deltas, level_factors, priors in zip(
        scores, deltas, factors, _priors(head, scores), strict=True
    ):
        logits = by_position(level_scores, head.cls_out_channels)
        probabilities = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[..., :-1]
        if level_factors is not None:
            level_factors = by_position(level_factors, 1)[..., 0].sigmoid()
        levels.append(
            Candidates(
                probabilities,
                by_position(level_deltas, head.bbox_coder.encode_size),
                priors,
                level_factors,
            )
        )
    return levels


def _distributions(head: nn.Module, maps: tuple[Tensor, ...]) -> list[Candidates]:
    """mmdet's `GFLHead`: distances to the sides as distributions, whose means are in units of the stride."""
    scores, deltas = head(maps)
    levels = []
    for level_scores, level_deltas, priors, stride in zip(
        scores, deltas, _priors(head, scores), head.prior_generator.strides, strict=True
    ):
        distributions = by_position(level_deltas, 4 * (head.reg_max + 1))
        distances = _means(distributions, head.reg_max) * stride[0]
        probabilities = by_position(level_scores, head.cls_out_channels).sigmoid()
        levels.append(Candidates(probabilities, distances, head.anchor_center(priors)))
    return levels


def _means(distributions: Tensor, largest: int) -> Tensor:
    """Logits (N, P, 4 * (largest + 1)) -> (N, P, 4) means, as mmdet's `Integral`.

    That casts a buffer to the type which it has, and `torch.onnx.export` then loses the buffer's name.
    """
    shares = distributions.unflatten(-1, (4, largest + 1)).softmax(-1)
    return shares @ torch.arange(largest + 1, dtype=shares.dtype, device=shares.device)


def _objects(head: nn.Module, maps: tuple[Tensor, ...]) -> list[Candidates]:
    """mmdet's `YOLOXHead`: all levels together; of every position its best class, times objectness."""
    scores, deltas, objects = head(maps)
    priors = torch.cat(_priors(head, scores, with_stride=True))
    probabilities = torch.cat([by_position(x, head.cls_out_channels) for x in scores], 1).sigmoid()
    is_object = torch.cat([by_position(x, 1) for x in objects], 1).sigmoid()
    is_best = probabilities.argmax(-1, keepdim=True) == torch.arange(
        head.cls_out_channels, device=probabilities.device
    )
    return [
        Candidates(
            probabilities * is_object * is_best,
            torch.cat([by_position(x, 4) for x in deltas], 1),
            priors,
        )
    ]


def _priors(head: nn.Module, maps: list[Tensor], **options: bool) -> list[Tensor]:
    sizes = [level.shape[-2:] for level in maps]
    return head.prior_generator.grid_priors(
        sizes, dtype=maps[0].dtype, device=maps[0].device, **options
    )


def _decode_by_coder(head: nn.Module, priors: Tensor, deltas: Tensor) -> Tensor:
    return decode(head.bbox_coder, priors, deltas)


def _decode_in_strides(head: nn.Module, priors: Tensor, deltas: Tensor) -> Tensor:
    """Centre and size of boxes (N, T, 4) in units of the stride, which is the last of a prior (N, T, 4)."""
    centre = deltas[..., :2] * priors[..., 2:] + priors[..., :2]
    half = deltas[..., 2:].exp() * priors[..., 2:] / 2
    return torch.cat((centre - half, centre + half), dim=-1)


READERS = {
    ('BaseDenseHead', 'BaseDenseHead', 'BaseDenseHead'): (_levels, _decode_by_coder),
    ('BaseDenseHead', 'GFLHead', 'BaseDenseHead'): (_distributions, _decode_by_coder),
    ('YOLOXHead', 'BaseDenseHead', 'YOLOXHead'): (_objects, _decode_in_strides),
}
