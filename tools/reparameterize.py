"""Fold the re-parameterization of a trained checkpoint, once and for all.

    python tools/reparameterize.py CONFIG CHECKPOINT OUT
    python tools/test.py CONFIG OUT

OUT holds the weights of the whole model in the deploy structure and the meta data of CHECKPOINT,
without optimizer and schedule. Before it is written, the features of every UniRepLKNet in the model, or
those of a model with another network that folds, are compared before and after on a random input.
"""

import argparse
import io
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from mmengine.config import Config
    from torch import nn

# Above this the folding is wrong: rounding in float32 stays well below.
LARGEST_DIFFERENCE = 1e-3


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file that the checkpoint was trained with')
    parser.add_argument(
        'checkpoint', help='checkpoint in the training structure: a file, a URL, ...'
    )
    parser.add_argument('out', help='file to write')
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='KEY=VALUE', help='settings that override the config'
    )
    parser.add_argument(
        '--input-size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="size of the random input that is compared on (default: the config's input_shape, or 224 224)",
    )
    args = parser.parse_args()
    if args.input_size and min(args.input_size) < 1:
        parser.error(f'--input-size takes two sizes of at least 1, not {args.input_size}')
    return args


def build_model(cfg: 'Config') -> 'nn.Module':
    """The config's model with random weights: pretrained ones would be overwritten."""
    from mmengine.registry import MODELS, init_default_scope

    from unireplknet_mm.launch import explain_mistakes

    init_default_scope(cfg.get('default_scope', 'mmengine'))
    with explain_mistakes(cfg):
        return MODELS.build(cfg.model).eval()


def extract_features(
    model: 'nn.Module', channels: int, size: tuple[int, int]
) -> list['torch.Tensor']:
    """What the UniRepLKNets in a model, or else the model, make of a random input, flat.

    Args:
        channels: of the model's input; a UniRepLKNet gets its own number.
        size: height and width of the input.
    """
    import torch

    from unireplknet_mm.models.whole_model import find_backbones

    def flatten(value: object) -> list:
        if isinstance(value, torch.Tensor):
            return [value]
        return [tensor for part in value for tensor in flatten(part)]

    networks = [(backbone, backbone.in_channels) for backbone in find_backbones(model).values()]
    whole = getattr(model, 'extract_feat', model)
    features = []
    with torch.no_grad():
        for network, network_channels in networks or [(whole, channels)]:
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(1, network_channels, *size, generator=generator)
            features += flatten(network(x))
    return features


def relative_difference(before: list['torch.Tensor'], after: list['torch.Tensor']) -> float:
    """The largest difference of any two values, relative to the largest value of their tensor.

    NaN, where any of them is none or not finite.
    """
    import torch

    differences = [
        (new - old).abs().max() / old.abs().max() for old, new in zip(before, after, strict=True)
    ]
    # Unlike Python's max, torch's lets a NaN among finite numbers win.
    return torch.stack(differences).max().item()


def load_weights(
    model: 'nn.Module', state_dict: 'Mapping[str, torch.Tensor]', checkpoint: str, config: str
) -> None:
    """Load all weights of a model, the state dict of a file `checkpoint`, that was built from `config`.

    Raises:
        UserError: they do not fit.
    """
    from unireplknet_mm.errors import UserError
    from unireplknet_mm.models.whole_model import adapt_state_dict
    from unireplknet_mm.weights.reading import CheckpointError

    try:
        model.load_state_dict(adapt_state_dict(state_dict, model))
    except CheckpointError as error:
        raise UserError(f'checkpoint {checkpoint}: {error}') from error
    except RuntimeError as error:
        summary = '\n'.join(line[:200] for line in str(error).splitlines()[:3])
        raise UserError(f'{checkpoint} was not trained with {config}.\n{summary}') from error


def fold(
    model: 'nn.Module', cfg: 'Config', config: str, size: 'Sequence[int] | None' = None
) -> float:
    """Fold the re-parameterization of a model that was built from the file `config`.

    Args:
        size: height and width of the random input that the features are compared on.

    Returns:
        How far the features changed, relative to the largest.

    Raises:
        UserError: nothing in the model folds, or it changes the features.
    """
    from unireplknet_mm import launch
    from unireplknet_mm.models.whole_model import switch_to_deploy

    if not any(hasattr(module, 'switch_to_deploy') for module in model.modules()):
        raise launch.UserError(f'the model of {config} has nothing to re-parameterize.')
    size = size or launch.input_size(cfg) or (224, 224)
    channels = launch.input_channels(cfg, model)
    before = extract_features(model, channels, size)
    switch_to_deploy(model)
    difference = relative_difference(before, extract_features(model, channels, size))
    if not difference <= LARGEST_DIFFERENCE:
        raise launch.UserError(
            f'the features change by {difference:.1e} (relative) when the model is folded, more '
            f'than {LARGEST_DIFFERENCE:.0e}.\nNothing was written. Are the weights finite?'
        )
    return difference


def reparameterize(args: argparse.Namespace) -> None:
    import torch

    from unireplknet_mm import launch
    from unireplknet_mm.files import check_replaceable, write_bytes
    from unireplknet_mm.models.state_dict import find_state_dict
    from unireplknet_mm.models.whole_model import holds_deploy_form
    from unireplknet_mm.weights.published import local_path
    from unireplknet_mm.weights.reading import CheckpointError, load_checkpoint

    cfg = launch.load_config(args.config, args.cfg_options)
    launch.check_complete(cfg, 'reparameterize')
    launch.check_checkpoint(args.checkpoint)
    if os.path.realpath(args.out) == os.path.realpath(local_path(args.checkpoint)):
        raise launch.UserError('OUT is CHECKPOINT: choose another file, this one would be lost.')
    check_replaceable(args.out)
    launch.create_folder(os.path.dirname(args.out) or '.', 'OUT')
    checkpoint = load_checkpoint(args.checkpoint)
    model = build_model(cfg)
    try:
        state_dict = find_state_dict(checkpoint)
    except CheckpointError as error:
        raise launch.UserError(f'checkpoint {args.checkpoint}: {error}') from error
    if holds_deploy_form(state_dict):
        raise launch.UserError(f'{args.checkpoint} is in the deploy structure already.')
    load_weights(model, state_dict, args.checkpoint, args.config)
    difference = fold(model, cfg, args.config, args.input_size)
    result = dict(
        meta={**(checkpoint.get('meta') or {}), 'deploy': True}, state_dict=model.state_dict()
    )
    content = io.BytesIO()
    torch.save(result, content)
    write_bytes(args.out, content.getbuffer())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f'Wrote {args.out}: {parameters / 1e6:.1f} M parameters. On a random input the features '
        f'differ by {difference:.1e} (relative) from those of {args.checkpoint}.'
    )


def main() -> None:
    args = parse_args()
    from unireplknet_mm.launch import exit_on_user_error

    exit_on_user_error(reparameterize)(args)


if __name__ == '__main__':
    main()
