"""Forecasts of a test as pictures: `--show-dir` and `--show` of tools/test.py."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from unireplknet_mm.modalities.time_series.dataset import WindowSample
from unireplknet_mm.modalities.time_series.drawing import draw_forecast, draw_stations, to_image


@HOOKS.register_module()
class ForecastVisualizationHook(Hook):
    """Draws the first window of every `interval`-th batch of a test, in the units of the file.

    Where the data set says places, they are maps and the curves of some stations.

    Args:
        draw: whether it does.
        interval: batches from one picture to the next.
        show: also in a window, for `wait_time` seconds.
    """

    def __init__(
        self, draw: bool = False, interval: int = 1, show: bool = False, wait_time: float = 0.0
    ):
        self.draw, self.interval, self.show, self.wait_time = draw, interval, show, wait_time

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict[str, Any] | None = None,
        outputs: Sequence[WindowSample] | None = None,
    ) -> None:
        if not self.draw or batch_idx % self.interval:
            return
        meta = runner.test_dataloader.dataset.metainfo
        mean, deviation = np.asarray(meta['mean']), np.asarray(meta['deviation'])
        sample = outputs[0]
        past, forecast, truth = (
            values.float().cpu().numpy() * deviation + mean
            for values in (data_batch['inputs'][0], sample.forecast, sample.future)
        )
        title = f'forecast from {sample.start}'
        if 'places' in meta:
            figure = draw_stations(past, forecast, truth, np.array(meta['places']), title)
        else:
            figure = draw_forecast(past, forecast, truth, columns=meta['columns'], title=title)
        image = to_image(figure)
        runner.visualizer.add_image('forecast', image, step=batch_idx)
        if self.show:
            runner.visualizer.show(image, win_name='forecast', wait_time=self.wait_time)
