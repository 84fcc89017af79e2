"""Mask R-CNN, Cascade Mask R-CNN and their kin: proposals, RoIAlign, boxes, masks, a fixed number of each.

The modules are mmdet's trained ones; what mmdet writes between them as loops over images and selections
of varying length is written here for whole batches. Numbers are those of `test_cfg`: `max_per_img`
proposals and detections in every image, the surplus with a score of 0.
"""

import torch
import torchvision
from torch import Tensor, nn

from unireplknet_mm.export.deployable import inherits
from unireplknet_mm.export.detection.results import Detections
from unireplknet_mm.export.detection.suppression import (
    Suppression,
    best,
    clip,
    take,
    without_small,
)
from unireplknet_mm.export.errors import ExportError


class TwoStage(nn.Module):
    """Maps of the neck -> detections, of an mmdet `TwoStageDetector`.

    Raises:
        ExportError: it has a part that is not known here.
    """

    takes_padding = True

    def __init__(self, model: nn.Module):
        super().__init__()
        self.proposals = Proposals(model.rpn_head)
        self.regions = Regions(model.roi_head)
        self.gives_masks = self.regions.gives_masks
        self.score_threshold = self.regions.score_threshold
        self.number = self.regions.number
        self.mask_threshold = self.regions.mask_threshold

    @staticmethod
    def takes(model: nn.Module) -> bool:
        is_panoptic = inherits(
            model, 'TwoStagePanopticSegmentor'
        )  # whose result is a map, not boxes
        return inherits(model, 'TwoStageDetector') and not is_panoptic

    def forward(
        self, maps: tuple[Tensor, ...], bounds: Tensor, size: tuple[int, int]
    ) -> Detections:
        return self.regions(maps, *self.proposals(maps, bounds), bounds)


class Proposals(nn.Module):
    """mmdet's `RPNHead`: maps -> boxes (N, max_per_img, 4), best first, and which exist; the rest is 0."""

    def __init__(self, head: nn.Module):
        super().__init__()
        _check_class(head, 'RPNHead')
        self.head = head
        settings = head.test_cfg
        self.number_before = int(settings.get('nms_pre', -1))
        self.number = int(settings.max_per_img)
        self.smallest = float(settings.get('min_bbox_size', -1))
        self.suppression = Suppression.of(settings.nms)

    def forward(self, maps: tuple[Tensor, ...], bounds: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = self.head(maps)
        anchors = self.head.prior_generator.grid_priors(
            [level.shape[-2:] for level in scores], device=maps[0].device
        )
        boxes, ranked, levels = [], [], []
        for level, (level_scores, level_deltas, level_anchors) in enumerate(
            zip(scores, deltas, anchors, strict=True)
        ):
            level_scores, chosen = self._best_of_level(self._probabilities(level_scores))
            level_deltas = take(by_position(level_deltas, 4), chosen)
            level_anchors = level_anchors[chosen]
            decoded = decode(self.head.bbox_coder, level_anchors, level_deltas)
            boxes.append(clip(decoded, bounds) if self.head.bbox_coder.clip_border else decoded)
            ranked.append(level_scores)
            levels.append(torch.full_like(chosen[0], level))
        boxes, ranked, levels = torch.cat(boxes, 1), torch.cat(ranked, 1), torch.cat(levels)
        ranked = without_small(boxes, ranked, self.smallest)
        ranked, chosen = best(self.suppression(boxes, ranked, levels), self.number)
        exists = ranked > 0
        return take(boxes, chosen) * exists[..., None], exists

    def _probabilities(self, logits: Tensor) -> Tensor:
        """(N, anchors·channels, H, W) -> (N, anchors of all positions)."""
        logits = by_position(logits, self.head.cls_out_channels)
        return (logits.sigmoid() if self.head.use_sigmoid_cls else logits.softmax(-1))[..., 0]

    def _best_of_level(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        number = scores.shape[1]
        if self.number_before > 0:
            number = torch.sym_min(number, self.number_before)
        return scores.topk(number, dim=1)


class Regions(nn.Module):
    """mmdet's `StandardRoIHead` and `CascadeRoIHead`: maps and proposals (N, P, 4) -> detections."""

    def __init__(self, head: nn.Module):
        super().__init__()
        _check_class(head, 'StandardRoIHead', 'CascadeRoIHead')
        self.is_cascade = inherits(head, 'CascadeRoIHead')
        self.shared = head.shared_head if head.with_shared_head else nn.Identity()
        self.box_stages = _stages(head, 'bbox_roi_extractor', 'bbox_head', self.is_cascade)
        self.gives_masks = bool(head.with_mask)
        self.mask_stages = (
            _stages(head, 'mask_roi_extractor', 'mask_head', self.is_cascade)
            if self.gives_masks
            else nn.ModuleList()
        )
        for _, box_head in self.box_stages:
            if box_head.custom_activation:
                raise ExportError(
                    f'{type(box_head.loss_cls).__name__} activates scores in a way of its own, which is not '
                    'exported: only softmax is.'
                )
        for _, mask_head in self.mask_stages:
            _check_class(mask_head, 'FCNMaskHead')
        settings = head.test_cfg
        self.score_threshold = float(settings.score_thr)
        self.mask_threshold = float(settings.get('mask_thr_binary', 0.5))
        self.number = int(settings.max_per_img)
        self.suppression = Suppression.of(settings.nms)

    def forward(
        self, maps: tuple[Tensor, ...], boxes: Tensor, exists: Tensor, bounds: Tensor
    ) -> Detections:
        n, count = boxes.shape[:2]
        logits, decoded, stage_logits = 0.0, boxes[:, :, None], None
        for align, head in self.box_stages:
            boxes = _of_best_class(decoded, stage_logits)
            stage_logits, deltas = head(self.shared(align(maps, as_regions(boxes))))
            stage_logits = stage_logits.reshape(n, count, -1)
            logits = logits + stage_logits
            decoded = decode(head.bbox_coder, boxes.reshape(-1, 4), deltas)
            decoded = decoded.reshape(n, count, -1, 4)  # one for each class, or one for all
            if head.bbox_coder.clip_border:
                decoded = clip(decoded, bounds)
        scores = (logits / len(self.box_stages)).softmax(-1)[..., :-1]
        counts = (scores > self.score_threshold) & exists[..., None]
        return self._with_masks(maps, self._choose(decoded, scores * counts))

    def _choose(self, boxes: Tensor, scores: Tensor) -> Detections:
        """Boxes (N, P, classes or 1, 4) and scores (N, P, classes) -> the best of every class together."""
        n, count, classes = scores.shape
        boxes = boxes.expand(n, count, classes, 4).reshape(n, -1, 4)
        labels = torch.arange(classes, device=scores.device).repeat(count)
        kept = self.suppression.sparse(boxes, scores.reshape(n, -1), labels)
        scores, chosen = best(kept, self.number)
        return Detections.of(take(boxes, chosen), scores, chosen % classes)

    def _with_masks(self, maps: tuple[Tensor, ...], found: Detections) -> Detections:
        if not self.gives_masks:
            return found
        n, count = found.scores.shape
        labels = found.labels.clamp(min=0).reshape(-1)
        masks = 0.0
        for align, head in self.mask_stages:
            logits = head(
                self.shared(align(maps, as_regions(found.boxes)))
            )  # [n·count, classes, 28, 28]
            if logits.shape[1] > 1:
                index = labels[:, None, None, None].expand(-1, 1, *logits.shape[2:])
                logits = logits.gather(1, index)
            masks = masks + logits.sigmoid()
        masks = (masks / len(self.mask_stages)).reshape(n, count, *masks.shape[-2:])
        return found._replace(masks=masks * (found.scores > 0)[..., None, None])


class Align(nn.Module):
    """mmdet's `SingleRoIExtractor`: maps and regions (R, 5) -> (R, C, size, size).

    Each region belongs to one map. To every other map it is given as a region without extent, in which
    RoIAlign takes no sample, so that all maps see the same number of regions and hardly any work is done
    in vain.
    """

    def __init__(self, extractor: nn.Module):
        super().__init__()
        _check_class(extractor, 'SingleRoIExtractor')
        self.extractor = extractor
        for layer in extractor.roi_layers:
            _check_class(layer, 'RoIAlign')
            if layer.pool_mode != 'avg':
                raise ExportError(
                    f'RoIAlign with pool_mode={layer.pool_mode!r} cannot be exported: only avg can.'
                )

    def forward(self, maps: tuple[Tensor, ...], regions: Tensor) -> Tensor:
        layers = self.extractor.roi_layers
        levels = self.extractor.map_roi_levels(regions, len(layers))
        result = 0.0
        for level, (layer, level_map) in enumerate(zip(layers, maps, strict=False)):
            belongs = (levels == level)[:, None]
            pooled = torchvision.ops.roi_align(
                level_map,
                torch.cat((regions[:, :1], regions[:, 1:] * belongs), dim=1),
                layer.output_size,
                layer.spatial_scale,
                layer.sampling_ratio,
                layer.aligned,
            )
            result = result + torch.where(belongs[..., None, None], pooled, 0.0)
        return result


def as_regions(boxes: Tensor) -> Tensor:
    """(N, k, 4) -> (N·k, 5), with the index of the image in front."""
    images = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
    images = images[:, None, None].expand(-1, boxes.shape[1], 1)
    return torch.cat((images, boxes), dim=-1).reshape(-1, 5)


def decode(coder: object, anchors: Tensor, deltas: Tensor) -> Tensor:
    """Boxes of anchors (..., 4) and deltas (..., classes·4), not clipped: (..., classes·4)."""
    size = deltas.shape[-1]
    shape = (*deltas.shape[:-1], size)
    decoded = coder.decode(anchors.reshape(-1, anchors.shape[-1]), deltas.reshape(-1, size))
    return decoded.reshape(shape)


def by_position(x: Tensor, channels: int) -> Tensor:
    """(N, anchors·channels, H, W) -> (N, H·W·anchors, channels)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, channels)


def _of_best_class(decoded: Tensor, logits: Tensor | None) -> Tensor:
    """(N, P, classes or 1, 4) and logits (N, P, classes + 1) -> the boxes (N, P, 4) of the best class."""
    if logits is None or decoded.shape[2] == 1:
        return decoded[:, :, 0]
    index = logits[..., :-1].argmax(-1)[..., None, None].expand(-1, -1, 1, 4)
    return decoded.gather(2, index)[:, :, 0]


def _stages(head: nn.Module, extractor: str, stage_head: str, is_cascade: bool) -> nn.ModuleList:
    """Pairs of RoIAlign and head, a pair a stage."""
    extractors, heads = getattr(head, extractor), getattr(head, stage_head)
    pairs = zip(extractors, heads, strict=True) if is_cascade else [(extractors, heads)]
    return nn.ModuleList(nn.ModuleList((Align(one), other)) for one, other in pairs)


def _check_class(part: nn.Module, *known: str) -> None:
    """See that a part is of a class whose results are those computed here.

    Raises:
        ExportError: it is not.
    """
    if type(part).__name__ not in known:
        raise ExportError(f'{type(part).__name__} cannot be exported: {" and ".join(known)} can.')
