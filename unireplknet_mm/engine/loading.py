"""Loading weights into models with a network of the suite in them, whoever loads: with the suite's checks.

`mmengine.runner.load_checkpoint`, and with it mmpretrain's `get_model` and the inferencers of mmdet and
mmseg, find no name of a raw ImageNet file in the model, print what differs and go on with random weights.
Those functions have no hook, so the one that they all end in, `load_state_dict`, is replaced; other models do
not notice. An inferencer says that it is one through a replaced `_init_model`, and gets errors where there
would be predictions of random weights.
"""

import contextlib
import contextvars
import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.infer import BaseInferencer
from mmengine.logging import print_log
from mmengine.runner import checkpoint
from torch import Tensor, nn

from unireplknet_mm.models.state_dict import (
    find_prefix,
    find_state_dict,
    require_prefix,
    unwrap_names,
)
from unireplknet_mm.models.weight_report import WeightReport, load_what_fits, part_of
from unireplknet_mm.models.whole_model import (
    adapt_state_dict,
    check_not_only_backbone,
    find_backbones,
    find_networks,
    holds_deploy_form,
    switch_to_deploy,
    unwrap_model,
)
from unireplknet_mm.weights.errors import CheckpointError

ADVICE = (
    'Test with the config that it was trained with, or set num_classes of the heads to its number of '
    'classes. To fine-tune it on other classes, train with load_from.'
)

# The file that an inferencer is loading.
_inferring_with: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    'inferring_with', default=None
)


def load_for_test(model: nn.Module, content: Mapping[str, Any]) -> None:
    """Load the content of a checkpoint into a model that only predicts, which takes the form of the weights.

    What a runner with `CheckpointCheckHook` does for a test, for whoever has no runner.

    Raises:
        CheckpointError: the weights do not fit, or leave a part of the model with random ones.
    """
    state_dict = find_state_dict(content)
    if holds_deploy_form(state_dict, model):
        switch_to_deploy(model)
    checkpoint.load_state_dict(model, fit_for_test(state_dict, model), logger='current')


def fit_for_test(state_dict: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """What MMEngine is to load for a test, in which no part of the model may keep random weights.

    Args:
        model: in the form, training or deploy, of the weights; what fits is loaded into it here.

    Raises:
        CheckpointError: as in `load_for_test`.
    """
    state_dict = unwrap_names(adapt_state_dict(state_dict, model))
    check_not_only_backbone(state_dict, model)
    return load_and_report(state_dict, unwrap_model(model), is_training=False)


def load_and_report(
    state_dict: Mapping[str, Tensor], model: nn.Module, is_training: bool, warns: bool = False
) -> Mapping[str, Tensor]:
    """Load what fits, and where that is not everything, log a table of it.

    Args:
        state_dict: by the model's names.
        model: without wrappers.
        is_training: whether parts of the model may keep what they had, since they will be trained.
        warns: whether to warn that those would predict at random, where nobody knows what the model is for.

    Returns:
        What MMEngine is to load: the model's state after that, about which it has nothing to say, or
        `state_dict` where everything fits.

    Raises:
        CheckpointError: a model that is only tested would keep random weights for those of another shape.
    """
    try:
        report = load_what_fits(model, state_dict)
    except RuntimeError:  # MMEngine loads the rest and says which
        return state_dict
    if report.is_complete:
        return state_dict
    if report.reshaped and not is_training:
        raise CheckpointError(
            f'weights have another shape: {report.describe_reshaped()}.\n{ADVICE}'
        )
    left_random = find_random_parts(model, report)
    if left_random and not is_training:
        raise CheckpointError(
            f'there are no weights for {", ".join(left_random)} of the {type(model).__name__}, whose results '
            'would be random.\nTest with the config that it was trained with.'
        )
    message, level = f'Weights of the checkpoint in the model:\n{report.table()}', logging.INFO
    if warns and (report.reshaped or left_random):
        message += f'\nUntil it is trained, what was initialised anew predicts at random. {ADVICE}'
        level = logging.WARNING
    print_log(message, logger='current', level=level)
    return model.state_dict()


def find_random_parts(model: nn.Module, report: WeightReport) -> list[str]:
    """The parts of a model of whose parameters a file has none, but for heads that only training uses."""
    parameters = {name for name, _ in model.named_parameters()}
    loaded = {part_of(name) for name in report.loaded if name in parameters}
    missing = dict.fromkeys(part_of(name) for name in report.missing if name in parameters)
    return [part for part in missing if part not in loaded and 'auxiliary' not in part]


def adapting(load_state_dict: Callable) -> Callable:
    """`load_state_dict` of MMEngine that first gives the weights of a UniRepLKNet the model's names.

    What was loaded and what was not is then said in the suite's table; a strict call is left to MMEngine.
    """

    @functools.wraps(load_state_dict)
    def load(
        module: nn.Module,
        state_dict: Mapping[str, Any],
        strict: bool = False,
        logger: Any = None,
    ) -> None:
        model, file = unwrap_model(module), _inferring_with.get()
        try:
            weights = find_own_weights(model, state_dict, is_inferring=file is not None)
            if weights is not None:
                is_trained = is_initialised(model)
                if not is_trained and holds_deploy_form(weights, model):
                    fold_for_inference(model)
                if file is not None:
                    state_dict = fit_for_test(weights, model)
                else:
                    state_dict = adapt_state_dict(weights, model)
                    if not strict:
                        state_dict = load_and_report(
                            state_dict, model, is_training=True, warns=not is_trained
                        )
        except CheckpointError as error:
            if file is None:
                raise
            raise CheckpointError(f'checkpoint {file}: {error}') from None
        load_state_dict(module, state_dict, strict, logger)

    load.adapts = True
    return load


def find_own_weights(
    model: nn.Module, state_dict: Mapping[str, Any], is_inferring: bool
) -> Mapping[str, Tensor] | None:
    """The weights in a state dict, or None where it or the model has no network of the suite.

    Raises:
        CheckpointError: a model with a UniRepLKNet is to predict with weights that have none.
    """
    if not find_networks(model):
        return None
    try:
        weights = find_state_dict(state_dict)
    except CheckpointError:  # weights of something else, or none at all: MMEngine says so
        return None
    if find_backbones(model):
        if is_inferring:
            require_prefix(unwrap_names(weights))
        elif find_prefix(unwrap_names(weights)) is None:
            return None
    return weights


def fold_for_inference(model: nn.Module) -> None:
    """Fold a model for weights that are re-parameterized, and say so once."""
    if not all(network.deploy for network in find_networks(model).values()):
        switch_to_deploy(model)
        print_log(
            'The weights are re-parameterized, so the model was folded as well: it is for inference.',
            logger='current',
        )


def is_initialised(model: nn.Module) -> bool:
    """Whether someone has initialised a model, which a training does before it loads weights into it.

    Those who predict build a model and load; a model that is being initialised (`init_cfg` of the whole
    model) has MMEngine's notes on how.
    """
    return getattr(model, 'is_init', False) or hasattr(model, '_params_init_info')


@contextlib.contextmanager
def inferring(file: str) -> Iterator[None]:
    """While a model is built to predict with the weights of `file`: what does not fit is an error."""
    token = _inferring_with.set(file)
    try:
        yield
    finally:
        _inferring_with.reset(token)


def building_for_inference(init_model: Callable) -> Callable:
    """`BaseInferencer._init_model` that refuses weights that do not fit."""

    @functools.wraps(init_model)
    def build(self: Any, cfg: Any, weights: str | None, *args: Any, **kwargs: Any) -> nn.Module:
        with inferring(str(weights)):
            return init_model(self, cfg, weights, *args, **kwargs)

    build.is_inferring = True
    return build


if not hasattr(checkpoint.load_state_dict, 'adapts'):
    checkpoint.load_state_dict = adapting(checkpoint.load_state_dict)
if not hasattr(BaseInferencer._init_model, 'is_inferring'):
    BaseInferencer._init_model = building_for_inference(BaseInferencer._init_model)
