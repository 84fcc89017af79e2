"""A neck or a head that takes other maps than it gets, said before the first iteration.

Such a config builds, and a training would end in its first iteration with the traceback of some convolution.
Channels cannot be compared by their names in configs: necks take maps in other orders, drop some, or state
no channels at all. So a small image goes through the backbone, the neck and each head that maps are enough
for. What fails there over channels or the number of maps is the user's error; anything else is left to the
training.
"""

import inspect
import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unireplknet_mm.errors import UserError
from unireplknet_mm.models.whole_model import unwrap_model

Part = tuple[str, nn.Module]  # with its name as in the config

IMAGE_SIZE = 64  # the smallest with whole maps at stride 32 that are larger than a point

# What torch says of channels: the numbers expected and given, by name.
CHANNEL_ERRORS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r'expected input.* to have (?P<expected>\d+) channels, but got (?P<given>\d+) channels',
        r'mat1 and mat2 shapes cannot be multiplied \(\d+x(?P<given>\d+) and (?P<expected>\d+)x\d+\)',
        r'running_mean should contain (?P<given>\d+) elements not (?P<expected>\d+)',
        r'Given normalized_shape=\[(?P<expected>\d+)\].* but got input of size\[(?:\d+, )*(?P<given>\d+)\]',
    )
)


def check_channels(model: nn.Module, channels: int = 3, config: dict | None = None) -> None:
    """See that necks and heads take the maps that they get.

    Runs in evaluation mode, without gradients; the model's modes and torch's random numbers stay as they are.

    Args:
        model: with a `backbone`, and a `neck` and heads as mmdet, mmseg and mmpretrain name them, anywhere
            in it; any other is not checked.
        channels: of the input.
        config: what the model was built from, for the channels of parts that do not keep theirs.

    Raises:
        UserError: one does not; the message names it, its channels and those that it gets.
    """
    if is_model_wrapper(model) and not isinstance(model, DistributedDataParallel):
        return  # parameters in shards, of which no part can run alone
    for name, host in list(unwrap_model(model).named_modules()):
        if isinstance(getattr(host, 'backbone', None), nn.Module):
            _check_host(f'model.{name}.' if name else 'model.', host, channels, config or {})


def _check_host(prefix: str, host: nn.Module, channels: int, config: dict) -> None:
    parameter = next(host.backbone.parameters(), None)
    if parameter is None:
        return
    devices = [parameter.device] if parameter.is_cuda else []
    with _evaluation(host), torch.no_grad(), torch.random.fork_rng(devices):
        image = parameter.new_zeros(1, channels, IMAGE_SIZE, IMAGE_SIZE)
        try:
            maps = host.backbone(image)
        except Exception:  # it may want something else than an image
            return
        _check_parts(prefix, host, maps, config)


def _check_parts(prefix: str, host: nn.Module, maps: Any, config: dict) -> None:
    """Give what a backbone makes to those that follow it."""
    supplier = (f'{prefix}backbone', host.backbone)
    for part in _necks(f'{prefix}neck', getattr(host, 'neck', None)):
        if _channels_of(maps) is None:
            return
        maps, supplier = _run_explained(part, supplier, maps, config), part
    if _channels_of(maps) is None:
        return
    for part in _heads(prefix, host):
        _run_explained(part, supplier, maps, config)
    if isinstance(getattr(host, 'roi_head', None), nn.Module):
        _check_regions(f'{prefix}roi_head.', host.roi_head, supplier, _channels_of(maps), config)


def _necks(name: str, neck: nn.Module | None) -> Iterator[Part]:
    if isinstance(neck, nn.Sequential):  # how mmdet builds a list of necks
        for i, part in enumerate(neck):
            yield f'{name}[{i}]', part
    elif isinstance(neck, nn.Module):
        yield name, neck


def _heads(prefix: str, host: nn.Module) -> Iterator[Part]:
    """The heads that take the maps of the whole image, or the part of a head that does."""
    children = [(f'{prefix}{name}', part) for name, part in host.named_children()]
    roi_head = getattr(host, 'roi_head', None)
    if isinstance(getattr(roi_head, 'semantic_head', None), nn.Module):
        children.append((f'{prefix}roi_head.semantic_head', roi_head.semantic_head))
    for name, part in children:
        if not name.endswith('head') or part is roi_head:
            continue
        is_list = isinstance(part, nn.ModuleList)
        for i, head in enumerate(part if is_list else [part]):
            own = f'{name}[{i}]' if is_list else name
            if isinstance(getattr(head, 'pixel_decoder', None), nn.Module):
                yield own, head.pixel_decoder  # whose channels the head states
            else:
                yield own, head


def _check_regions(
    prefix: str,
    roi_head: nn.Module,
    supplier: Part,
    given: Sequence[int] | None,
    config: dict,
) -> None:
    """The heads of a two-stage detector, which see what an extractor cuts out of the maps."""
    for kind in ('bbox', 'mask'):
        heads = _as_list(getattr(roi_head, f'{kind}_head', None))
        extractors = _as_list(getattr(roi_head, f'{kind}_roi_extractor', None))
        for i, (head, extractor) in enumerate(zip(heads, extractors, strict=False)):
            channels = getattr(extractor, 'out_channels', None)
            layers = getattr(extractor, 'roi_layers', None)
            if not isinstance(channels, int) or not layers or not hasattr(layers[0], 'output_size'):
                continue
            index = f'[{i}]' if len(heads) > 1 else ''
            name = f'{prefix}{kind}_roi_extractor{index}'
            used = given[: len(layers)] if given else ()
            if type(extractor).__name__ == 'SingleRoIExtractor' and set(used) - {channels}:
                raise UserError(
                    f'{name} (SingleRoIExtractor) takes maps of {channels} channels, but '
                    f'{_described(supplier)} gives {_listed(used)}.\nSet out_channels of {name}, and '
                    f'in_channels of {prefix}{kind}_head, to that of the maps.'
                )
            region = next(head.parameters()).new_zeros(1, channels, *layers[0].output_size)
            part = f'{prefix}{kind}_head{index}', head
            _run_explained(part, (name, extractor), region, config)


def _run_explained(part: Part, supplier: Part, maps: Any, config: dict) -> Any:
    """What a neck or head makes of maps, None if it is not to be had.

    Raises:
        UserError: it takes other channels, or another number of maps.
    """
    name, module = part
    try:
        return _run(module, maps)
    except Exception as error:
        declared = getattr(module, 'in_channels', None) or _in_config(config, name)
        message = _explain(error, part, declared, supplier, _channels_of(maps))
        if message is None:
            return None
        raise UserError(message) from error


def _run(module: nn.Module, maps: Any) -> Any:
    """`module(maps)`; None for one that wants more."""
    first, *others = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ] or [None]
    needed = [parameter.name for parameter in others if parameter.default is parameter.empty]
    more = []
    if needed == ['batch_img_metas']:
        size = (IMAGE_SIZE, IMAGE_SIZE)
        more = [[dict(img_shape=size, pad_shape=size, batch_input_shape=size)]]
    elif first is None or needed:
        return None
    return module(maps, *more)


def _in_config(config: dict, name: str) -> int | list[int] | None:
    """The `in_channels` that a config states for a part, such as model.neck[0]; None if it states none."""
    _, *keys = re.findall(r'\w+', name)
    for key in keys:
        is_list = isinstance(config, list | tuple)
        if is_list and key.isdigit() and int(key) < len(config):
            config = config[int(key)]
        elif isinstance(config, dict) and key in config:
            config = config[key]
        else:
            return None
    return config.get('in_channels') if isinstance(config, dict) else None


def _explain(
    error: Exception,
    part: Part,
    declared: int | Sequence[int] | None,
    supplier: Part,
    given: Sequence[int],
) -> str | None:
    """What the user did wrong, None if it is not about channels or the number of maps."""
    name, module = part
    described = _described(part)
    index = getattr(module, 'in_index', None)
    if index is not None:
        indices = _as_list(index)
        if any(not -len(given) <= i < len(given) for i in indices):
            return (
                f'{described} takes the maps in_index={index}, but {_described(supplier)} gives '
                f'{len(given)}, of {_listed(given)} channels.\nSet in_index to those that there are, or '
                'out_indices of the backbone to those that are wanted.'
            )
        given = [given[i] for i in indices]
    numbers = _numbers_of(error)
    is_list = isinstance(declared, list | tuple)
    if numbers is None and (not is_list or len(declared) == len(given)):
        return None
    wanted = list(given)
    if isinstance(declared, int) and len(set(given)) == 1:
        declared, is_list, given, wanted = [declared], True, given[:1], given[0]
    if is_list and list(declared) != list(given):
        descends = len(declared) > 1 and list(declared) == sorted(declared, reverse=True)
        if descends and list(declared) != list(given)[::-1]:
            wanted = wanted[::-1]  # the deepest map first, as YOLOv3's neck has it
        return (
            f'{described} takes {_maps(declared)}, but {_described(supplier)} gives {_maps(given)}.\n'
            f'Set in_channels={wanted} of {name}'
            f'{"" if len(declared) == len(given) else ", or other out_indices of the backbone"}.'
        )
    if numbers is None:
        return None
    expected, got = numbers
    return (
        f'{described} does not take what {_described(supplier)} gives, {_maps(given)}: its layer '
        f'{_layer_of(error, module)} expects {expected} channels and gets {got}.\n'
        f'Set the channels of {name} to fit.'
    )


def _numbers_of(error: Exception) -> tuple[str, str] | None:
    """The channels that a layer expects and those that it gets, if the error speaks of them."""
    matches = (pattern.search(str(error)) for pattern in CHANNEL_ERRORS)
    match = next((match for match in matches if match), None)
    return (match['expected'], match['given']) if match else None


def _layer_of(error: Exception, module: nn.Module) -> str:
    """The name within `module` of the innermost layer in which an error arose, with its type."""
    names = {id(layer): name for name, layer in module.named_modules()}
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        layer = frame.f_locals.get('self')
        if id(layer) in names:
            return f'{names[id(layer)] or "itself"} ({type(layer).__name__})'
    return 'inside'


def _channels_of(maps: Any) -> list[int] | None:
    """The channels of a map, or of a sequence of maps or vectors; None for anything else."""
    if isinstance(maps, Tensor):
        maps = [maps]
    if not isinstance(maps, list | tuple) or not maps:
        return None
    if not all(isinstance(feature, Tensor) and feature.dim() > 1 for feature in maps):
        return None
    return [feature.shape[1] for feature in maps]


def _maps(channels: Sequence[int]) -> str:
    noun = 'a map' if len(channels) == 1 else f'{len(channels)} maps'
    return f'{noun} of {_listed(channels)} channels'


def _listed(channels: Sequence[int]) -> str:
    return ', '.join(map(str, channels))


def _described(part: Part) -> str:
    return f'{part[0]} ({type(part[1]).__name__})'


def _as_list(value: Any) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple | nn.ModuleList) else [value]


@contextmanager
def _evaluation(module: nn.Module) -> Iterator[None]:
    """Within it, a module is in evaluation mode."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode
