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

from common_options import add_cfg_options, add_checkpoint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file that the checkpoint was trained with')
    add_checkpoint(parser, 'checkpoint in the training structure')
    parser.add_argument('out', help='file to write')
    add_cfg_options(parser)
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


def reparameterize(args: argparse.Namespace) -> None:
    import torch

    from unireplknet_mm import launch
    from unireplknet_mm.files import check_replaceable, write_bytes
    from unireplknet_mm.launch import folding
    from unireplknet_mm.models.whole_model import holds_deploy_form
    from unireplknet_mm.weights.published import local_path

    cfg = launch.load_config(args.config, args.cfg_options)
    launch.check_complete(cfg, 'reparameterize')
    launch.check_checkpoint(args.checkpoint)
    if os.path.realpath(args.out) == os.path.realpath(local_path(args.checkpoint)):
        raise launch.UserError('OUT is CHECKPOINT: choose another file, this one would be lost.')
    check_replaceable(args.out)
    launch.create_folder(os.path.dirname(args.out) or '.', 'OUT')
    checkpoint, state_dict = folding.read_checkpoint(args.checkpoint)
    model = folding.build_model(cfg)
    if holds_deploy_form(state_dict, model):
        raise launch.UserError(f'{args.checkpoint} is in the deploy structure already.')
    folding.load_weights(model, state_dict, args.checkpoint, args.config)
    difference = folding.fold(model, cfg, args.config, args.input_size)
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
