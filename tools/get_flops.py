"""Parameters and FLOPs of a config's model, without running it: no weights, no data, any size.

As in the paper's Tables 4 to 7, FLOPs are multiply-adds of convolutions and matrix products for one
image, of the deploy form, in which branches and norms of the backbone are folded. Norms,
activations, resizing and RoIAlign are not counted; heads that only training uses are left out. The
heads of a two-stage detector see 1000 boxes and 100 masks, as mmdet 2.x counted them. Tensors live
on PyTorch's meta device: shapes are computed, numbers are not.

    python tools/get_flops.py configs/det/cascade_unireplknet_xl_3x.py --shape 800 1280
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from common_options import add_cfg_options
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unireplknet_mm.configuration import type_name
from unireplknet_mm.launch import (
    UserError,
    check_complete,
    exit_on_user_error,
    explain_mistakes,
    input_size,
    load_config,
)
from unireplknet_mm.models.whole_model import (
    find_backbones,
    find_embedding,
    leading_shape,
    on_meta,
    switch_to_deploy,
)

NUM_BOXES = 1000
NUM_MASKS = 100
HEADS = ('roi_head', 'decode_head', 'bbox_head', 'head')


class Part(NamedTuple):
    """A part of a model: its name, its parameters and its multiply-adds."""

    name: str
    parameters: int
    flops: int


def default_shape(cfg: Config) -> tuple[int, int]:
    """Height and width, the last two of `input_shape`, where a config has it, or those that the paper
    counts at: 800×1280 for detection, one crop by four for segmentation, the crop for classification.

    Raises:
        UserError: the config's task has no such convention; `--shape` is needed.
    """
    if input_size(cfg):
        return input_size(cfg)
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        return 800, 1280
    if scope == 'mmseg' and 'crop_size' in cfg:
        height, width = cfg.crop_size
        return height, 4 * width
    for step in cfg.get('train_pipeline', ()):
        if type_name(step) == 'RandomResizedCrop':
            scale = step['scale']
            return (scale, scale) if isinstance(scale, int) else tuple(scale)
    raise UserError(
        f'{cfg.filename} does not tell the size of its input.\nAdd --shape HEIGHT WIDTH.'
    )


def build_on_meta(cfg: Config, deploy: bool = True) -> nn.Module:
    """The config's model in evaluation mode, with parameters that have shapes and no memory.

    With `deploy`, what can be re-parameterized is.
    """
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope'))
    with scope, on_meta(), explain_mistakes(cfg):
        model = MODELS.build(cfg.model).eval()
        if deploy:
            switch_to_deploy(model)
    return model


def count_parts(
    model: nn.Module, height: int, width: int, leading: Sequence[int] = (3,)
) -> list[Part]:
    """Count a model on one image of `height` × `width`, or a sample that ends in these.

    Args:
        model: on the meta device. With an `embedding`, a `backbone` and heads as mmdet, mmseg and mmpretrain
            name them, each is a part; of any other model, its UniRepLKNets and the rest of a forward pass.
        leading: what stands before height and width in the shape of the sample, such as the channels.

    Raises:
        UserError: the head does not run on maps, or another model on an image, alone.
    """
    image = torch.empty(1, *leading, height, width, device='meta')
    names = [name for name in HEADS if isinstance(getattr(model, name, None), nn.Module)]
    if not names or not isinstance(getattr(model, 'backbone', None), nn.Module):
        return count_forward(model, image)
    parts = []

    def count(name: str, module: nn.Module, inputs: Any) -> Any:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            outputs = module(inputs)
        # PyTorch counts a multiply-add as two.
        flops = counter.get_total_flops() // 2
        parts.append(Part(name, count_parameters(module), flops))
        return outputs

    embedding = find_embedding(model)
    if embedding is not None:
        image = count('embedding', embedding, image)
    features = count('backbone', model.backbone, image)
    if getattr(model, 'with_neck', False):
        features = count('neck', model.neck, features)
    if names[0] == 'roi_head':
        if model.with_rpn:
            count('rpn_head', model.rpn_head, features)
        count_roi_head(model.roi_head, count)
    else:
        head = getattr(model, names[0])
        try:
            count(names[0], head, features)
        except Exception as error:  # those of detection transformers want queries or ground truth
            raise UserError(
                f'{type(head).__name__} does not run on maps alone, so it cannot be counted: {error}'
            ) from error
    return parts


def count_forward(model: nn.Module, image: torch.Tensor) -> list[Part]:
    """Count a forward pass of `model`: each UniRepLKNet in it, then what is left."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        try:
            model(image)
        except Exception as error:  # the user's model may not take such an input, or not alone
            raise UserError(
                f'{type(model).__name__} does not run on an input {tuple(image.shape)} alone: {error}\n'
                'A model without a backbone and a head, as mmdet, mmseg and mmpretrain name them, is counted '
                'on a forward pass.'
            ) from error
    by_module = counter.get_flop_counts()
    parts = []
    for prefix, backbone in find_backbones(model).items():
        path = f'{type(model).__name__}.{prefix}'.rstrip('.')
        flops = sum(by_module.get(path, {}).values()) // 2
        parts.append(Part(prefix.rstrip('.') or 'backbone', count_parameters(backbone), flops))
    parameters = count_parameters(model) - sum(part.parameters for part in parts)
    flops = counter.get_total_flops() // 2 - sum(part.flops for part in parts)
    return [*parts, Part('the rest', parameters, flops)]


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_roi_head(roi_head: nn.Module, count: Callable) -> None:
    """Count the box heads on `NUM_BOXES` and the mask heads on `NUM_MASKS` regions, each stage."""
    kinds = (('bbox', NUM_BOXES, 'boxes'), ('mask', NUM_MASKS, 'masks'))
    for kind, num_regions, unit in kinds:
        if not getattr(roi_head, f'with_{kind}'):
            continue
        heads = as_list(getattr(roi_head, f'{kind}_head'))
        extractors = as_list(getattr(roi_head, f'{kind}_roi_extractor'))
        for stage, (head, extractor) in enumerate(zip(heads, extractors, strict=True), start=1):
            size = extractor.roi_layers[0].output_size
            regions = torch.empty(num_regions, extractor.out_channels, *size, device='meta')
            count(f'{kind}_head {stage}, {num_regions} {unit}', head, regions)


def as_list(modules: nn.Module | Sequence[nn.Module]) -> list[nn.Module]:
    return list(modules) if isinstance(modules, (nn.ModuleList, list)) else [modules]


def format_table(parts: Sequence[Part]) -> str:
    """One line a part and one for the whole."""
    whole = Part('whole', sum(p.parameters for p in parts), sum(p.flops for p in parts))
    width = max(len(part.name) for part in parts)
    lines = [f'{"":<{width}}  parameters       FLOPs']
    lines += [
        f'{part.name:<{width}}  {part.parameters / 1e6:>8.2f} M  {part.flops / 1e9:>8.2f} G'
        for part in (*parts, whole)
    ]
    return '\n'.join(lines)


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='a config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='PIXELS',
        help='height and width of the input, or one number for both; default: what the paper uses',
    )
    parser.add_argument(
        '--train-form', action='store_true', help='count the training form, branches and all'
    )
    add_cfg_options(parser)
    args = parser.parse_args(arguments)
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 1):
        parser.error(f'--shape takes one or two positive numbers, got {args.shape}')
    return args


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    cfg = load_config(args.config, args.cfg_options)
    check_complete(cfg, 'get_flops')
    height, width = (args.shape * 2)[:2] if args.shape else default_shape(cfg)
    model = build_on_meta(cfg, deploy=not args.train_form)
    print(f'{args.config}, {"training" if args.train_form else "deploy"} form, {height}x{width}')
    leading = leading_shape(model, cfg.get('input_shape'))
    print(format_table(count_parts(model, height, width, leading)))
    noun = 'image' if find_embedding(model) is None else f'sample {(*leading, height, width)}'
    print(f'FLOPs: multiply-adds of convolutions and matrix products, for one {noun}.')


if __name__ == '__main__':
    main()
