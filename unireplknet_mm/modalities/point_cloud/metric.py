"""The two figures of point-cloud classification."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class OverallAndMeanAccuracy(BaseMetric):
    """`accuracy/OA`, the share of right predictions, and `accuracy/mAcc`, the mean of those of the classes.

    In percent; classes without a sample do not count.
    """

    default_prefix = 'accuracy'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            self.results.append((int(sample['gt_label']), int(sample['pred_score'].argmax())))

    def compute_metrics(self, results: list[tuple[int, int]]) -> dict[str, float]:
        labels, predicted = np.array(results).T
        is_right = labels == predicted
        shares = [is_right[labels == label].mean() for label in np.unique(labels)]
        return dict(OA=100 * float(is_right.mean()), mAcc=100 * float(np.mean(shares)))
