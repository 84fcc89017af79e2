"""What a backbone or neck of any toolbox puts out, measured: strides and channels of its maps."""

import copy

import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from unireplknet_mm.configuration import find_dicts
from unireplknet_mm.swapping.swap import FeatureMap, SwapError, summarise

UNKNOWN = 'what {} puts out cannot be found out: {}'
INPUT_SIZE = 128  # divisible by the strides and patches in use
# Arguments that change neither stride nor channels; some of them need mmcv's compiled ops or a download.
LEFT_OUT = ('init_cfg', 'pretrained', 'dcn', 'stage_with_dcn', 'plugins', 'with_cp')


def measure_backbone(config: ConfigDict, scope: str, in_channels: int = 3) -> list[FeatureMap]:
    """The maps that a backbone makes of an image.

    Args:
        config: of the backbone.
        scope: the toolbox whose registry knows its type.

    Raises:
        SwapError: it cannot be built or run, or returns something else than maps.
    """
    config = _without_needs(config)
    own_size = config.get('img_size')
    try:
        image = torch.zeros(1, in_channels, INPUT_SIZE, INPUT_SIZE)
        return _measure(config, scope, image, (INPUT_SIZE, INPUT_SIZE))
    except SwapError:
        if own_size is None:
            raise
    # Some vision transformers take images of one size only.
    height, width = (own_size, own_size) if isinstance(own_size, int) else own_size
    image = torch.zeros(1, in_channels, height, width)
    return _measure(config, scope, image, (height, width))


def trained_parameters(config: ConfigDict, scope: str) -> dict[str, bool]:
    """The names of a backbone's parameters, without `backbone.`, and whether a training changes each.

    Raises:
        SwapError: it cannot be built.
    """
    module = _build(_without_needs(config), scope)
    module.train()  # where some freeze their stages
    return {name: param.requires_grad for name, param in module.named_parameters()}


def _without_needs(config: ConfigDict) -> ConfigDict:
    config = copy.deepcopy(config)
    for key in LEFT_OUT:
        config.pop(key, None)
    for norm in find_dicts(config.get('norm_cfg')):
        norm.pop('eps', None)  # 0 in some configs, which new versions of torch refuse
    return config


def measure_neck(config: ConfigDict, scope: str, maps: list[FeatureMap]) -> list[FeatureMap]:
    """The maps that a neck makes of a backbone's; errors as in `measure_backbone`."""
    sides = [-(-INPUT_SIZE // feature.stride) for feature in maps]
    inputs = [
        torch.zeros(1, feature.channels, side, side)
        for feature, side in zip(maps, sides, strict=True)
    ]
    config = copy.deepcopy(config)
    for part in find_dicts(config):
        part.pop('init_cfg', None)
    return _measure(config, scope, inputs, (INPUT_SIZE, INPUT_SIZE))


def _measure(
    config: ConfigDict, scope: str, inputs: Tensor | list[Tensor], size: tuple[int, int]
) -> list[FeatureMap]:
    name = config['type']
    module = _build(config, scope)
    module.eval()  # which of mmdet's ResNet returns None
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            outputs = module(inputs)
    except Exception as error:  # whatever the code of a toolbox, or of the user, raises
        raise SwapError(UNKNOWN.format(name, summarise(error))) from error
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    if not outputs or not all(isinstance(x, Tensor) and x.dim() == 4 for x in outputs):
        raise SwapError(f'{name} puts out something else than maps (N, C, H, W).')
    return [FeatureMap(round(size[0] / x.shape[2]), x.shape[1]) for x in outputs]


def _build(config: ConfigDict, scope: str) -> nn.Module:
    try:
        with DefaultScope.overwrite_default_scope(scope), torch.random.fork_rng(devices=[]):
            return MODELS.build(config)
    except Exception as error:  # whatever the code of a toolbox, or of the user, raises
        raise SwapError(UNKNOWN.format(config['type'], summarise(error))) from error
