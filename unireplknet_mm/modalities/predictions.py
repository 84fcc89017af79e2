"""What models predict, in numbers and words of one form whatever the toolbox: for `tools/predict.py`."""

import collections
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unireplknet_mm.errors import UserError

BEST_CLASSES = 5  # of a classification, where nobody asks for another number


class Labels(NamedTuple):
    """The classes of a data set, as far as they are known: without names they go by their numbers.

    `palette` has an RGB colour in 0 to 255 a class.
    """

    names: Sequence[str] | None = None
    palette: Sequence[Sequence[int]] | None = None

    def name(self, label: int) -> str:
        return str(self.names[label]) if self.names and label < len(self.names) else str(label)


class Span(NamedTuple):
    """Where a part of an input lies, in seconds from its beginning."""

    start: float
    end: float


class Part(NamedTuple):
    """A part of an input that was predicted for itself: where it lies, what the model got and returned."""

    span: Span
    inputs: Tensor
    sample: Any


@dataclass
class Prediction(ABC):
    """What a model says about one input.

    Args:
        path: the file or folder.
        inputs: what the config's test pipeline made of it, and the model got; of parts, the first one's.
        sample: what the model returned, in the toolbox's structure, on the CPU; of parts, their mean.
        labels: the classes.
        top: how many classes or instances are named, at most.
        score_thr: what has this score or a lower one is not named.
        parts: of an input that was predicted in several.
    """

    path: Path
    inputs: Tensor
    sample: Any
    labels: Labels
    top: int | None = None
    score_thr: float = 0.0
    parts: Sequence[Part] = ()

    field: ClassVar[str]  # of the toolbox's structure, by which these predictions are told

    @property
    @abstractmethod
    def scores(self) -> Tensor:
        """All scores of the model, which are numbers unless something is wrong."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Plain values for a JSON file; `docs/prediction.md` describes them."""

    @abstractmethod
    def line(self) -> str:
        """In words, for people."""


class ClassPrediction(Prediction):
    """Of a classifier: a score a class."""

    field = 'pred_score'

    @property
    def scores(self) -> Tensor:
        return self.sample.pred_score

    @property
    def ranking(self) -> list[tuple[str, float]]:
        """The best classes and their scores."""
        return [(self.labels.name(label), score) for label, score in self._best()]

    def record(self) -> dict[str, Any]:
        best = self._best()
        record = dict(
            predicted=self.sample.pred_label.flatten().tolist(),
            labels=[label for label, _ in best],
            classes=[self.labels.name(label) for label, _ in best],
            scores=[score for _, score in best],
        )
        if self.parts:
            record['parts'] = [
                dict(
                    start=part.span.start,
                    end=part.span.end,
                    score=part.sample.pred_score.max().item(),
                )
                | {'class': name}
                for part, name in self.best_of_parts()
            ]
        return record

    def best_of_parts(self) -> list[tuple[Part, str]]:
        """The parts, and of each its best class."""
        return [
            (part, self.labels.name(part.sample.pred_score.argmax().item())) for part in self.parts
        ]

    def lines(self) -> list[str]:
        """A class each with its score, or that there is none: at least one line."""
        ranking = [f'{name} {score:.3f}' for name, score in self.ranking]
        return ranking or [f'no class above {self.score_thr:g}']

    def line(self) -> str:
        return '; '.join(self.lines())

    def _best(self) -> list[tuple[int, float]]:
        best = self.scores.topk(min(self.top or BEST_CLASSES, len(self.scores)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(label, score) for label, score in pairs if score > self.score_thr]


def mean_of_parts(samples: Sequence[Any], head: Any) -> Any:
    """The mean of the scores of a classifier's samples, and the labels that its head would decide for."""
    scores = torch.stack([sample.pred_score for sample in samples]).mean(0)
    threshold, count = getattr(head, 'thr', None), getattr(head, 'topk', None)  # of several labels
    if threshold is not None:
        labels = torch.where(scores >= threshold)[0]
    else:
        labels = scores.topk(count if isinstance(count, int) else 1).indices
    return samples[0].new().set_pred_score(scores).set_pred_label(labels)


class InstancePrediction(Prediction):
    """Of a detector: boxes, and masks where it has a head for them."""

    field = 'pred_instances'

    @property
    def scores(self) -> Tensor:
        return self.sample.pred_instances.scores

    @property
    def instances(self) -> Any:
        """The best ones, in the order of their scores; the toolbox's `InstanceData`."""
        order = self.scores.argsort(descending=True, stable=True)
        order = order[self.scores[order] > self.score_thr][: self.top]
        return self.sample.pred_instances[order]

    def record(self) -> dict[str, Any]:
        found = self.instances
        labels = found.labels.tolist()
        record = dict(
            labels=labels,
            classes=[self.labels.name(label) for label in labels],
            scores=found.scores.tolist(),
        )
        if 'bboxes' in found:
            record['boxes'] = found.bboxes.tolist()
        if 'masks' in found:
            record['masks'] = [encode_mask(mask) for mask in found.masks]
        return record

    def line(self) -> str:
        found = self.instances
        scores = collections.defaultdict(list)
        for label, score in zip(found.labels.tolist(), found.scores.tolist(), strict=True):
            scores[label].append(f'{score:.2f}')
        groups = [
            f'{len(group)} {self.labels.name(label)} ({" ".join(group)})'
            for label, group in scores.items()
        ]
        return ', '.join(groups) or f'nothing above {self.score_thr:g}'


class MapPrediction(Prediction):
    """Of a segmenter: a class a pixel."""

    field = 'pred_sem_seg'

    @property
    def scores(self) -> Tensor:
        if 'seg_logits' in self.sample:
            return self.sample.seg_logits.data
        return torch.zeros(())  # a model that keeps none

    @property
    def shares(self) -> list[tuple[int, float]]:
        """The labels in the map and their shares of its pixels, the largest first."""
        labels, counts = self.sample.pred_sem_seg.data.unique(return_counts=True)
        shares = (counts / counts.sum()).tolist()
        pairs = sorted(zip(labels.tolist(), shares, strict=True), key=lambda pair: -pair[1])
        return pairs[: self.top]

    def record(self) -> dict[str, Any]:
        label_map = self.sample.pred_sem_seg.data[0]  # (H, W)
        segments = [
            dict(
                label=label,
                **{'class': self.labels.name(label)},
                share=share,
                mask=encode_mask(label_map == label),
            )
            for label, share in self.shares
        ]
        return dict(size=list(label_map.shape), segments=segments)

    def line(self) -> str:
        return ', '.join(f'{self.labels.name(label)} {share:.1%}' for label, share in self.shares)


KINDS = (InstancePrediction, MapPrediction, ClassPrediction)


def prediction_type(sample: Any) -> type[Prediction]:
    """Which of the above a model's result is.

    Raises:
        UserError: it is none of them.
    """
    for kind in KINDS:
        if kind.field in sample:
            return kind
    raise UserError(
        f'the model predicts {", ".join(sample.keys()) or "nothing"}; classes with scores (pred_score), '
        'boxes and masks (pred_instances) and label maps (pred_sem_seg) are what is read here.'
    )


def encode_mask(mask: Tensor | np.ndarray) -> dict[str, Any]:
    """A binary (H, W) mask as COCO's run lengths: `size` (height, width) and `counts`, a string."""
    from pycocotools.mask import encode

    encoded = encode(np.asfortranarray(np.asarray(mask), dtype=np.uint8))
    return dict(size=list(encoded['size']), counts=encoded['counts'].decode())
