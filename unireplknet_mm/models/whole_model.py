"""UniRepLKNets inside whole models: finding them, loading raw files into their hosts, folding everything;
and building models without memory.

A backbone may sit anywhere in a classifier, detector, segmenter or model of one's own, once or several
times; nothing here relies on the name `backbone`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models.backbone import Backbone
from unireplknet_mm.models.state_dict import (
    BODY,
    SIGNATURE,
    check_backbone_weights,
    find_prefix,
    has_folded_units,
    is_deploy_form,
    require_prefix,
    unwrap_names,
)
from unireplknet_mm.models.unireplknet import UniRepLKNet
from unireplknet_mm.weights.reading import CheckpointError


def find_backbones(model: nn.Module) -> dict[str, UniRepLKNet]:
    """The UniRepLKNets of a model by the prefix of their parameters' names: '' for the model itself.

    Wrappers for distributed training and test-time augmentation do not count in the prefix.
    """
    return {
        prefix: network
        for prefix, network in find_networks(model).items()
        if isinstance(network, UniRepLKNet)
    }


def find_embedding(model: nn.Module) -> nn.Module | None:
    """What makes other data than images a map in front of a model's backbone; None for images."""
    embedding = getattr(unwrap_model(model), 'embedding', None)
    return embedding if isinstance(embedding, nn.Module) else None


def leading_shape(model: nn.Module, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    """What stands before height and width in the shape of a sample: the channels, where it is an image.

    Args:
        input_shape: of a sample, as the config states it; without it, the first UniRepLKNet in the model
            says how many channels there are, or else there are 3.
    """
    if input_shape:
        return tuple(input_shape[:-2])
    backbones = find_backbones(model)
    return (next((backbone.in_channels for backbone in backbones.values()), 3),)


def map_channels(model: nn.Module, input_shape: Sequence[int] | None) -> int:
    """The channels of the map that a model's backbone takes; `input_shape` as in `leading_shape`."""
    embedding = find_embedding(model)
    if embedding is None:
        return next(iter(leading_shape(model, input_shape)), 1)
    for backbone in find_backbones(model).values():
        return backbone.in_channels
    if not input_shape:
        raise ArgumentError(
            f'the config does not say what {type(embedding).__name__} takes: add input_shape, the shape of '
            'one sample'
        )
    parameter = next(model.parameters())
    with torch.no_grad():
        return embedding(parameter.new_zeros(1, *input_shape)).shape[1]


def find_networks(model: nn.Module) -> dict[str, Backbone]:
    """As `find_backbones`, every network of the suite: UniRepLKNets and those of the paper's studies."""
    return {
        f'{name}.' if name else '': module
        for name, module in unwrap_model(model).named_modules()
        if isinstance(module, Backbone)
    }


def holds_deploy_form(state_dict: Mapping[str, Tensor], model: nn.Module | None = None) -> bool:
    """Whether the UniRepLKNet in a state dict is re-parameterized; False where there is none.

    Args:
        state_dict: names and tensors.
        model: what they are for: of its other networks that fold, which the names alone do not tell, the
            weights are looked at as well.
    """
    names = unwrap_names(state_dict)
    prefix = find_prefix(names)
    if prefix is not None:
        return is_deploy_form(name[len(prefix) :] for name in names if name.startswith(prefix))
    networks = {} if model is None else find_networks(model)
    return any(
        has_folded_units(name for name in names if name.startswith(prefix))
        for prefix, network in networks.items()
        if not isinstance(network, UniRepLKNet)
    )


def adapt_state_dict(state_dict: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """A state dict under the names that `model` has, checked against its UniRepLKNet.

    Raw ImageNet weights get the names of a classifier (`backbone.*`, `head.fc.*`) or, in other models,
    of the backbone alone. A classifier, detector or segmenter is returned as it is. Heads are not
    checked.

    Args:
        state_dict: names and tensors, as `find_state_dict` returns them.
        model: what they are to be loaded into. Without a UniRepLKNet in it nothing is done.

    Raises:
        CheckpointError: the weights have no UniRepLKNet, or not one that fits.
    """
    model = unwrap_model(model)
    backbones = find_backbones(model)
    if not backbones:
        return state_dict
    state_dict = unwrap_names(state_dict)
    found = require_prefix(state_dict)
    if found == '' and '' not in backbones:
        state_dict = _rename_raw(state_dict, model, list(backbones))
    for prefix, backbone in backbones.items():
        weights = {
            name[len(prefix) :]: value
            for name, value in state_dict.items()
            if name.startswith(prefix)
        }
        if SIGNATURE not in weights:
            raise CheckpointError(
                f'the weights have their UniRepLKNet under {found!r}, the model under {prefix!r}'
            )
        try:
            check_backbone_weights(backbone, weights)
        except CheckpointError as error:
            if len(backbones) == 1:
                raise
            raise CheckpointError(f'{prefix.rstrip(".")} of the model: {error}') from None
    return state_dict


def _rename_raw(
    raw: Mapping[str, Tensor], model: nn.Module, prefixes: list[str]
) -> dict[str, Tensor]:
    own = model.state_dict().keys()
    renamed = OrderedDict()
    for name, value in raw.items():
        if name.startswith('head.'):
            new_names = [name.replace('head.', 'head.fc.', 1)]
        else:
            new_names = [prefix + name for prefix in prefixes]
        is_body = name.startswith(BODY)
        renamed.update((new, value) for new in new_names if is_body or new in own)
    return renamed


def unwrap_model(model: nn.Module) -> nn.Module:
    """A model without wrappers for distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_not_only_backbone(state_dict: Mapping[str, Tensor], model: nn.Module) -> None:
    """Refuse to test a model of which only the backbone has weights.

    Raises:
        CheckpointError: no part with parameters beside the backbone is in the state dict.
    """
    model = unwrap_model(model)
    parts = list(_parts_beside_backbones(model))
    has_weights = any(name.startswith(f'{part}.') for part in parts for name in state_dict)
    if find_backbones(model) and parts and not has_weights:
        raise CheckpointError(
            f'there are weights for the backbone only, none for {", ".join(parts)} of the '
            f'{type(model).__name__}: test a trained one; pretrained weights belong in the init_cfg of '
            'the backbone'
        )


def _parts_beside_backbones(module: nn.Module, prefix: str = '') -> Iterator[str]:
    """The outermost parts of a model that have parameters and no UniRepLKNet in them, by name."""
    if isinstance(module, UniRepLKNet):
        return
    for name, part in module.named_children():
        if find_backbones(part):
            yield from _parts_beside_backbones(part, f'{prefix}{name}.')
        elif any(True for _ in part.parameters()):
            yield prefix + name


def switch_to_deploy(model: nn.Module) -> int:
    """Call `switch_to_deploy()` of the outermost modules of `model` that offer it; return their number."""
    if hasattr(model, 'switch_to_deploy'):
        model.switch_to_deploy()
        return 1
    return sum(switch_to_deploy(child) for child in model.children())


@contextmanager
def on_meta() -> Iterator[None]:
    """Within it, models are built with parameters that have shapes and no memory.

    As `torch.device('meta')`, but for the rates of drop path, which the networks of mmpretrain and mmdet take
    from `torch.linspace` as numbers.
    """
    with torch.device('meta'), _NumbersOnCPU():
        yield


class _NumbersOnCPU(TorchFunctionMode):
    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.linspace:
            kwargs.setdefault('device', 'cpu')
        return function(*args, **kwargs)
