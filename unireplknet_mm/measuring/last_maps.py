"""The last map of any network of the catalogue, with its weights and its images.

A map is what the last stage makes, before norms and heads where they can be told apart.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError, UserError
from unireplknet_mm.models.state_dict import (
    compare_weights,
    find_state_dict,
    load_backbone_weights,
    unwrap_names,
)
from unireplknet_mm.models.whole_model import find_backbones
from unireplknet_mm.weights.reading import CheckpointError, load_checkpoint

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


class Normalization(NamedTuple):
    """What images become before a network sees them: mean and deviation in 0 to 255, order of channels."""

    mean: Sequence[float] = (123.675, 116.28, 103.53)  # ImageNet's
    std: Sequence[float] = (58.395, 57.12, 57.375)
    is_rgb: bool = True


def last_map_of(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function from images to the last map of a model, which is set to evaluation and frozen.

    Args:
        model: one with a UniRepLKNet or another backbone of OpenMMLab, a model of timm, or a sequence of
            layers with a global average pooling.

    Raises:
        ArgumentError: the model is none of these.
    """
    model.eval().requires_grad_(False)
    backbones = list(find_backbones(model).values())
    if backbones:
        return _after(backbones[0], backbones[0].stages[backbones[0].out_indices[-1]])
    if isinstance(getattr(model, 'backbone', None), nn.Module):
        return _last_output(model.backbone)
    if hasattr(model, 'forward_intermediates'):
        return lambda x: model.forward_intermediates(x, indices=1, intermediates_only=True)[-1]
    if hasattr(model, 'forward_features'):
        return model.forward_features
    if isinstance(model, nn.Sequential):
        layers = list(model)
        while layers and not isinstance(layers.pop(), nn.AdaptiveAvgPool2d):
            pass
        if layers:
            return nn.Sequential(*layers)
    raise ArgumentError(
        f'{type(model).__name__} has no last map that this can find: it has no backbone, no '
        'forward_features, and no global average pooling in a sequence of layers'
    )


def _after(model: nn.Module, layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a layer of a model makes."""

    def last_map(x: Tensor) -> Tensor:
        outputs = []
        handle = layer.register_forward_hook(lambda *arguments: outputs.append(arguments[-1]))
        try:
            model(x)
        finally:
            handle.remove()
        return outputs[-1]

    return last_map


def _last_output(backbone: nn.Module) -> Callable[[Tensor], Tensor]:
    """The last of the maps that a backbone of OpenMMLab makes, also where it was to average or flatten it."""
    if getattr(backbone, 'gap_before_final_norm', False):
        backbone.gap_before_final_norm = False
    if hasattr(backbone, 'out_type'):  # of vision transformers: a token, an average, or the map
        backbone.out_type = 'featmap'

    def last_map(x: Tensor) -> Tensor:
        outputs = backbone(x)
        return outputs[-1] if isinstance(outputs, list | tuple) else outputs

    return last_map


def load_weights(model: nn.Module, source: str) -> None:
    """Load weights from wherever the suite reads them; of a UniRepLKNet the backbone's alone.

    Raises:
        UserError: there is no such file, or it is of another network.
    """
    backbones = list(find_backbones(model).values())
    if backbones:
        for backbone in backbones:
            load_backbone_weights(backbone, source)
        return
    weights = dict(unwrap_names(find_state_dict(load_checkpoint(source))))
    own = {n: t for n, t in model.state_dict().items() if not n.endswith('num_batches_tracked')}
    counts = [n for n in weights if n not in own and n.endswith('num_batches_tracked')]
    differences = compare_weights({n: t for n, t in weights.items() if n not in counts}, own)
    if differences:
        raise CheckpointError(
            f'checkpoint {source} does not match {type(model).__name__}: {differences}'
        )
    model.load_state_dict(weights, strict=False)


def normalization_of(cfg: Config) -> Normalization:
    """What a config's data preprocessor does to images."""
    settings = cfg.get('data_preprocessor') or cfg.model.get('data_preprocessor') or {}
    if settings.get('mean') is None:
        return Normalization()
    is_rgb = settings.get('bgr_to_rgb', settings.get('to_rgb', False))
    return Normalization(tuple(settings['mean']), tuple(settings['std']), bool(is_rgb))


def find_images(paths: Sequence[str | Path], count: int) -> list[Path]:
    """The first `count` images of these files and folders, in the order of their names.

    Raises:
        UserError: a path does not exist, or there is no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f'{path}, which --images names, does not exist.')
        inside = sorted(path.rglob('*')) if path.is_dir() else [path]
        found += [file for file in inside if file.suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise UserError(
            f'--images: there is no image ({", ".join(IMAGE_SUFFIXES)}) in {", ".join(map(str, paths))}.'
        )
    return found[:count]


def read_images(
    files: Sequence[Path], size: int, normalization: Normalization, device: str
) -> Iterator[Tensor]:
    """Images, resized to squares with bicubic interpolation and normalized: (1, 3, size, size) each.

    Raises:
        UserError: a file is no image.
    """
    mean, std = (torch.tensor(n).view(-1, 1, 1) for n in (normalization.mean, normalization.std))
    for file in files:
        try:
            with Image.open(file) as opened:
                image = opened.convert('RGB').resize((size, size), Image.Resampling.BICUBIC)
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f'{file} cannot be read as an image: {error}') from error
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float()
        pixels = pixels if normalization.is_rgb else pixels.flip(0)
        yield ((pixels - mean) / std)[None].to(device)


def random_images(count: int, channels: int, size: int, device: str) -> Iterator[Tensor]:
    """Normal noise, the same for every network: (1, channels, size, size) each."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.randn(1, channels, size, size, generator=generator).to(device)
