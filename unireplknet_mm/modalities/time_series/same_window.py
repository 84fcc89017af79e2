"""Before a test or a forecast: the windows are as long as those that the weights were trained on."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.time_series.base import SeriesModel
from unireplknet_mm.models.whole_model import unwrap_model
from unireplknet_mm.weights.reading import dataset_meta


def check_window(model: SeriesModel, learnt: Mapping[str, Any]) -> None:
    """Compare a model's look-back with that of its weights' training.

    Where the last map is a single point, weights for one look-back fit a model for another, whose forecasts
    would be wrong without a word.

    Args:
        learnt: `dataset_meta` of a checkpoint's meta; without a look-back nothing is known.

    Raises:
        ArgumentError: they differ.
    """
    look_back = learnt.get('look_back', model.look_back)
    if look_back != model.look_back:
        raise ArgumentError(
            f'the checkpoint was trained on windows of {look_back} rows, but the model of the config sees '
            f'{model.look_back}: take the config of its training, look_back={look_back}'
        )


@HOOKS.register_module()
class SameWindowHook(Hook):
    """Does so at the start of a test, with the checkpoint that was loaded.

    Raises:
        ArgumentError: of `check_window`.
    """

    def __init__(self):
        self.learnt: Mapping[str, Any] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.learnt = dataset_meta(checkpoint)

    def before_test(self, runner: Runner) -> None:
        check_window(unwrap_model(runner.model), self.learnt)
