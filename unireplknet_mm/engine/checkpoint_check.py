"""Before the runner loads a checkpoint: give it the model's names and form, or refuse it.

Without it MMEngine loads what matches, warns about the rest and goes on, so that a test of weights
of another arch, or of ImageNet weights in a detector, ends in a low score instead of an error.
"""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, FlexibleRunner, Runner
from torch import Tensor, nn

from unireplknet_mm.engine.loading import fit_for_test, load_and_report
from unireplknet_mm.models.state_dict import compare_weights, find_state_dict, unwrap_names
from unireplknet_mm.models.whole_model import (
    adapt_state_dict,
    holds_deploy_form,
    switch_to_deploy,
    unwrap_model,
)
from unireplknet_mm.weights.reading import CheckpointError


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Adapts a checkpoint to the model before the runner loads it, and refuses one that does not fit.

    A model that is only tested takes the form of the weights: re-parameterized ones fold it first. A
    training takes the form that its config builds, and weights of the other one are an error. A training
    that is resumed takes nothing but a checkpoint of its very model. Where model and file differ, a table
    in the log says what was loaded and what was not; a test refuses weights of another shape.
    With FlexibleRunner it does nothing: its strategies may hold and read shards, which do not compare.
    """

    priority = 'VERY_HIGH'  # before EMAHook, which reads checkpoint['state_dict']

    def after_load_checkpoint(self, runner: Runner | FlexibleRunner, checkpoint: dict) -> None:
        if isinstance(runner, FlexibleRunner):
            return
        is_training = isinstance(runner._train_loop, BaseLoop)
        try:
            state_dict = find_state_dict(checkpoint)
            if not is_training and holds_deploy_form(state_dict, runner.model):
                take_deploy_form(runner)
            if not is_training:
                state_dict = fit_for_test(state_dict, runner.model)
            else:
                state_dict = adapt_state_dict(state_dict, runner.model)
                if runner._resume:
                    check_same_model(state_dict, runner.model)
                    check_has_progress(checkpoint)
                else:
                    model = unwrap_model(runner.model)
                    state_dict = load_and_report(state_dict, model, is_training=True)
        except CheckpointError as error:
            if runner._load_from is None:  # one that a user's own code has read
                raise
            raise CheckpointError(f'checkpoint {runner._load_from}: {error}') from None
        checkpoint['state_dict'] = state_dict


def check_same_model(state_dict: Mapping[str, Tensor], model: nn.Module) -> None:
    """Check that names and shapes are those of the model, as the optimizer's state is for them.

    With an EMAHook too the ordinary names, of the averages, are those of the model. Where they differ, the
    weights are loaded: parts of the toolboxes rename those of their earlier versions as they are loaded.

    Raises:
        CheckpointError: they are not.
    """
    model = unwrap_model(model)
    weights = unwrap_names(state_dict)
    differences = compare_weights(weights, model.state_dict())
    if not differences:
        return
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise CheckpointError(
            f'it is of another model than the training that is to go on: {differences}.\n'
            'To start a new training from its weights, set load_from instead of resuming.'
        ) from None


def check_has_progress(checkpoint: Mapping[str, Any]) -> None:
    """Check that a checkpoint says how far its training was.

    Raises:
        CheckpointError: it does not.
    """
    meta = checkpoint.get('meta') or {}
    if not {'epoch', 'iter'} <= meta.keys():
        raise CheckpointError(
            'it does not say how far a training was (meta.epoch, meta.iter), so none can go on from it.\n'
            'To start a new training from its weights, set load_from instead of resuming.'
        )


def take_deploy_form(runner: Runner) -> int:
    """Fold the runner's model and the moving averages that an EMAHook swaps with its weights.

    Returns:
        The number of modules of the model that offered it.
    """
    count = switch_to_deploy(runner.model)
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            switch_to_deploy(hook.ema_model.module)
    return count


@HOOKS.register_module()
class SwitchToDeployHook(Hook):
    """Fold the re-parameterization of every module that offers it, before testing.

    Runs after the weights are loaded; `tools/test.py --deploy` adds it.
    """

    def before_test(self, runner: Runner) -> None:
        count = take_deploy_form(runner)
        runner.logger.info(f'Re-parameterized {count} module(s): testing the deploy structure.')
