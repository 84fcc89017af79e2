"""Before the first iteration: labels mean the same classes in all data sets, and the head has that many.

For classifiers, of images and of whatever else.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from unireplknet_mm.configuration import as_names
from unireplknet_mm.errors import ArgumentError, listed
from unireplknet_mm.models.whole_model import unwrap_model
from unireplknet_mm.weights.reading import dataset_meta

MOST_STATED = 40  # classes that a message lists as a whole


@HOOKS.register_module()
class SameClassesHook(Hook):
    """Compares the classes of validation with those of training, of a test with those of the checkpoint.

    So it does those of a training that is resumed. A training that begins with the weights of a checkpoint
    (`load_from`) may be of other classes; where there are as many, so that the head's weights fit, a warning
    says so. A data set that takes its classes from the folders that are there would otherwise number them
    anew where one is missing. What states no classes is not compared. Labels are compared with the head's
    `num_classes`. `default_hooks=dict(same_classes=None)` in the config leaves all of it out.

    Raises:
        ArgumentError: the classes are others, or in another order, or a label is beyond those of the head.
    """

    def __init__(self):
        self.learnt: tuple[str, ...] = ()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.learnt = as_names(dataset_meta(checkpoint).get('classes'))

    def before_train(self, runner: Runner) -> None:
        trained = runner.train_dataloader.dataset
        if runner._resume:
            _compare(trained, self.learnt, 'the training', 'the checkpoint that it goes on from')
        else:
            self._compare_with_head(trained, runner)
        _check_labels(trained, runner)
        if runner.val_loop is None:
            return
        validated = runner.val_dataloader.dataset
        _compare(validated, _classes(trained), 'validation', 'training')
        _check_labels(validated, runner)

    def before_test(self, runner: Runner) -> None:
        tested = runner.test_dataloader.dataset
        _compare(tested, self.learnt, 'the test', 'the checkpoint')
        _check_labels(tested, runner)

    def _compare_with_head(self, trained: Any, runner: Runner) -> None:
        classes = _classes(trained)
        if len(classes) == len(self.learnt) and classes != self.learnt:
            runner.logger.warning(
                f'The weights of the head are those of other classes{_difference(classes, self.learnt)}: '
                'they are where the training of these begins.'
            )


def _classes(dataset: Any) -> tuple[str, ...]:
    return as_names(getattr(dataset, 'metainfo', {}).get('classes'))


def _compare(dataset: Any, wanted: Sequence[str], name: str, wanted_name: str) -> None:
    classes = _classes(dataset)
    if not classes or not wanted or classes == wanted:
        return
    stated = list(wanted) if len(wanted) <= MOST_STATED else '[...]'
    if getattr(dataset, 'folder_to_idx', None):
        # mmpretrain's, which numbers the folders that are there.
        advice = f'give it a folder for each of {stated} and for no other; an empty one will do'
    else:
        advice = f'state the same in the data sets of the config, classes={stated}'
    raise ArgumentError(
        f'the classes of {name} differ from those of {wanted_name}{_difference(classes, wanted)}, so that '
        f'labels would mean others: {advice}'
    )


def _difference(classes: Sequence[str], others: Sequence[str]) -> str:
    differing = sorted(set(classes) ^ set(others))
    return f' ({listed(differing)})' if differing else ', in their order'


def _check_labels(dataset: Any, runner: Runner) -> None:
    """Looks through the labels only where the data set does not state as few classes as the head has."""
    num_classes = getattr(getattr(unwrap_model(runner.model), 'head', None), 'num_classes', None)
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
