"""Make what is put on the Hugging Face hub of a trained checkpoint: weights, config.json, a model card.

    python tools/publish.py CONFIG CHECKPOINT DIR --repository ME/NAME
    hf upload ME/NAME DIR

DIR gets the weights alone, without optimizer and history, as NAME-HASH.safetensors; a README.md with the
figures of --scores and --figure; and for classifiers the config.json with which timm builds the model:
timm.create_model('hf-hub:ME/NAME', pretrained=True), or 'local-dir:DIR'.
"""

import argparse
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from common_options import add_cfg_options, add_checkpoint

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file that the checkpoint was trained with')
    add_checkpoint(parser, 'its checkpoint')
    parser.add_argument('dir', help='folder to write to; new or empty')
    add_cfg_options(parser)
    parser.add_argument(
        '--deploy', action='store_true', help='fold the re-parameterization: weights for inference'
    )
    parser.add_argument(
        '--scores',
        metavar='FILE',
        help='the JSON file of a test of these weights (work_dirs/NAME/TIME/TIME.json): measured figures',
    )
    parser.add_argument(
        '--figure',
        nargs='+',
        default=[],
        metavar='NAME=VALUE',
        help='figures that were not measured with --scores, for instance top-1=83.9',
    )
    parser.add_argument(
        '--repository',
        default='OWNER/NAME',
        metavar='OWNER/NAME',
        help='where on the hub it will be, for the examples in the model card',
    )
    parser.add_argument('--license', help='of the weights, as the hub names it: apache-2.0, ...')
    args = parser.parse_args()
    for figure in args.figure:
        if not re.fullmatch(r'[^=]+=.+', figure):
            parser.error(f'--figure takes NAME=VALUE, not {figure}')
    if not re.fullmatch(r'[^/\s]+/[^/\s]+', args.repository):
        parser.error(f'--repository takes OWNER/NAME, not {args.repository}')
    return args


def publish(args: argparse.Namespace) -> None:
    from unireplknet_mm import launch
    from unireplknet_mm.errors import ExistingFileError
    from unireplknet_mm.files import creating_folder, write_bytes
    from unireplknet_mm.launch import publishing

    folder = Path(args.dir)
    if folder.is_dir() and any(folder.iterdir()):
        raise ExistingFileError(f'{folder} is not empty: name a new folder, or empty it.')
    measured = publishing.read_scores(args.scores) if args.scores else {}
    cfg = launch.load_config(args.config, args.cfg_options)
    launch.check_complete(cfg, 'publish')
    launch.check_checkpoint(args.checkpoint)
    with creating_folder(folder, 'DIR'):
        files = make_files(args, cfg, measured)
        try:
            for name, data in files.items():
                write_bytes(folder / name, data)
        except BaseException:
            for name in files:
                (folder / name).unlink(missing_ok=True)
            raise
    size = len(next(iter(files.values())))
    print(f'Wrote {", ".join(files)} in {folder}: {size / 1e6:.1f} MB of weights.')
    if 'config.json' not in files:
        print('No config.json: timm builds plain classifiers of RGB images only.')


def make_files(
    args: argparse.Namespace, cfg: 'Config', measured: dict[str, float]
) -> dict[str, bytes]:
    """What is to be published, by the files' names, the weights first.

    Raises:
        UserError: the checkpoint cannot be read, or does not fit the config.
    """
    from unireplknet_mm.launch import folding, publishing
    from unireplknet_mm.models.whole_model import holds_deploy_form, switch_to_deploy
    from unireplknet_mm.weights.reading import dataset_meta

    checkpoint, state_dict = folding.read_checkpoint(args.checkpoint)
    model = folding.build_model(cfg)
    is_folded = holds_deploy_form(state_dict, model)
    if is_folded:
        switch_to_deploy(model)
    folding.load_weights(model, state_dict, args.checkpoint, args.config)
    if args.deploy and not is_folded:
        folding.fold(model, cfg, args.config)

    for_timm = publishing.timm_backbone(cfg, model) is not None
    title = Path(args.config).stem
    stem = f'{title}-deploy' if args.deploy or is_folded else title
    file_name, content = publishing.weights_file(
        stem, publishing.weights_to_publish(model, for_timm)
    )
    card = publishing.model_card(
        cfg,
        model,
        title,
        file_name,
        for_timm=for_timm,
        measured=measured,
        stated=dict(figure.split('=', 1) for figure in args.figure),
        repository=args.repository,
        license_name=args.license,
    )
    files = {file_name: content, 'README.md': card.encode()}
    if for_timm:
        classes = dataset_meta(checkpoint).get('classes')
        config = publishing.timm_config(cfg, model, file_name, classes)
        files['config.json'] = (json.dumps(config, indent=2) + '\n').encode()
    return files


def main() -> None:
    args = parse_args()
    from unireplknet_mm.launch import exit_on_user_error

    exit_on_user_error(publish)(args)


if __name__ == '__main__':
    main()
