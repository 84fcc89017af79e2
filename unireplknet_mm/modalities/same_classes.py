"""Before the first iteration: labels mean the same classes in all data sets, and the head has that many."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from unireplknet_mm.errors import ArgumentError

NAMED = 5  # classes that differ, of those that a message lists
MOST_STATED = 40  # classes that a message lists as a whole


@HOOKS.register_module()
class SameClassesHook(Hook):
    """Compares the classes of validation with those of training, of a test with those of the checkpoint.

    A data set that takes its classes from the folders that are there would otherwise number them anew where
    one is missing. What states no classes is not compared. Labels are compared with the head's `num_classes`.
    `default_hooks=dict(same_classes=None)` in the config leaves all of it out.

    Raises:
        ArgumentError: the classes are others, or in another order, or a label is beyond those of the head.
    """

    def __init__(self):
        self.learnt: Sequence[str] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
        self.learnt = meta.get('classes')

    def before_train(self, runner: Runner) -> None:
        trained = runner.train_dataloader.dataset
        _check_labels(trained, runner)
        if runner.val_loop is None:
            return
        validated = runner.val_dataloader.dataset
        _compare(_classes(validated), _classes(trained), 'validation', 'training')
        _check_labels(validated, runner)

    def before_test(self, runner: Runner) -> None:
        tested = runner.test_dataloader.dataset
        _compare(_classes(tested), self.learnt, 'the test', 'the checkpoint')
        _check_labels(tested, runner)


def _classes(dataset: Any) -> Sequence[str] | None:
    return getattr(dataset, 'metainfo', {}).get('classes')


def _compare(
    classes: Sequence[str] | None, wanted: Sequence[str] | None, name: str, wanted_name: str
) -> None:
    if not classes or not wanted or tuple(classes) == tuple(wanted):
        return
    differing = sorted(set(classes) ^ set(wanted))
    difference = f' ({_listed(differing)})' if differing else ', in their order'
    stated = [str(label) for label in wanted] if len(wanted) <= MOST_STATED else '[...]'
    raise ArgumentError(
        f'the classes of {name} differ from those of {wanted_name}{difference}, so that labels would mean '
        f'others: state the same in the data sets of the config, classes={stated}'
    )


def _listed(names: Sequence[str]) -> str:
    return ', '.join(islice(names, NAMED)) + (', ...' if len(names) > NAMED else '')


def _check_labels(dataset: Any, runner: Runner) -> None:
    """Looks through the labels only where the data set does not state as few classes as the head has."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    num_classes = getattr(getattr(model, 'head', None), 'num_classes', None)
    get_info = getattr(dataset, 'get_data_info', None)
    classes = _classes(dataset)
    if num_classes is None or get_info is None or (classes and len(classes) <= num_classes):
        return
    for index in range(len(dataset)):
        info = get_info(index)
        label = max(np.atleast_1d(info.get('gt_label', -1)), default=-1)
        if label >= num_classes:
            place_of = getattr(dataset, 'place_of', None)
            raise ArgumentError(
                f'{place_of(index) if place_of else _path(info, index)}: the label {label} (they count '
                f'from 0) is beyond the head, which has num_classes={num_classes}: correct the label or '
                'set model.head.num_classes and data_preprocessor.num_classes'
            )


def _path(info: dict, index: int) -> str:
    paths = (str(value) for key, value in info.items() if key.endswith('_path'))
    return next(paths, f'sample {index}')
