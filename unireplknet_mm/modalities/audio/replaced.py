"""How many of the recordings that a score is of were not heard."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.registry import METRICS

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.audio.recordings import RecordingError


@METRICS.register_module()
class ReplacedRecordings(BaseMetric):
    """Counts the recordings that could not be used and for which silence was taken, of all processes.

    Other scores count what the model says of silence there. This number stands beside them, so that they are
    of the whole set and nobody takes them for those of what was heard.

    Args:
        most: the share of them up to which the scores are worth anything, from 0 to 1.
        named: `collect_device` and `prefix` of MMEngine's `BaseMetric`.

    Raises:
        RecordingError: there are more.
    """

    default_prefix = 'replaced'

    def __init__(self, most: float = 0.1, **named: Any):
        super().__init__(**named)
        if not 0 <= most <= 1:
            raise ArgumentError(f'most of ReplacedRecordings is a share from 0 to 1, not {most}')
        self.most = most

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        self.results += [bool(sample.get('is_replaced', False)) for sample in data_samples]

    def compute_metrics(self, results: list[bool]) -> dict[str, int]:
        count, total = sum(results), len(results)
        text = f'{count} of the {total} recordings could not be used and count as silence'
        if count > self.most * total:
            raise RecordingError(f'{text}: most={self.most:g} allows no more than that share')
        if count:
            print_log(text, logger='current', level=logging.WARNING)
        return dict(recordings=count)
