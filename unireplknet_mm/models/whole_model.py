"""UniRepLKNets inside whole models: finding them, loading raw files into their hosts, folding everything.

A backbone may sit anywhere in a classifier, detector, segmenter or model of one's own, once or several
times; nothing here relies on the name `backbone`.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from unireplknet_mm.models.state_dict import (
    BODY,
    SIGNATURE,
    check_backbone_weights,
    find_prefix,
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
        f'{name}.' if name else '': module
        for name, module in unwrap_model(model).named_modules()
        if isinstance(module, UniRepLKNet)
    }


def holds_deploy_form(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether the UniRepLKNet in a state dict is re-parameterized; False where there is none."""
    names = unwrap_names(state_dict)
    prefix = find_prefix(names)
    if prefix is None:
        return False
    return is_deploy_form(name[len(prefix) :] for name in names if name.startswith(prefix))


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
