"""The error of forecasts on standardised values."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class ForecastError(BaseMetric):
    """MSE and MAE over all windows, rows and variables, on standardised values, as the field reports them.

    No window is left out: published code before 2024 dropped the last batch of the test.
    """

    default_prefix = 'forecast'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            difference = (sample['forecast'] - sample['future']).double()
            self.results.append(
                (
                    difference.square().mean().item(),
                    difference.abs().mean().item(),
                )
            )

    def compute_metrics(self, results: list[tuple[float, float]]) -> dict[str, float]:
        mse, mae = torch.tensor(results, dtype=torch.float64).mean(dim=0).tolist()
        return dict(mse=mse, mae=mae)
