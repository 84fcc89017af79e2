"""The effective receptive field of networks, side by side, as a table and a picture.

    python tools/erf.py unireplknet_t resnet101 --size 512 --out erf.png
    python tools/erf.py unireplknet_s=unireplknet_s_in1k resnet101=pretrained --images ImageNet/val
    python tools/erf.py configs/seg/upernet_unireplknet_t_160k.py=CHECKPOINT --images FOLDER

MODEL is a config, an arch of the suite (unireplknet_t), replknet_31b, slak_t, or a name of timm (if it is
installed) or mmpretrain; timm:NAME and mmpretrain:NAME where both have it. MODEL=WEIGHTS loads them: a file,
a URL, a published name; of timm and mmpretrain also "pretrained". Without, weights are random, drawn so that
every layer counts, and say what the structure alone does.

Definition and thresholds are those of RepLKNet and of Fig. 2 of the UniRepLKNet paper: docs/erf.md. Those
figures are of trained networks on 50 ImageNet images of 1024x1024. Ctrl-C reports what there is.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common_options import INTERRUPTED, positive

if TYPE_CHECKING:
    from torch import Tensor, nn

    from unireplknet_mm.measuring.erf import Field
    from unireplknet_mm.measuring.last_maps import Normalization


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('models', nargs='+', metavar='MODEL[=WEIGHTS]', help='see above')
    parser.add_argument(
        '--images', nargs='+', metavar='PATH', help='images, or folders of them; default: noise'
    )
    parser.add_argument('--num-images', type=positive, default=50, metavar='N', help='default: 50')
    parser.add_argument(
        '--size',
        type=positive,
        default=1024,
        metavar='PIXELS',
        help='side of the input; default: 1024',
    )
    parser.add_argument(
        '--linear',
        action='store_true',
        help='squares of the scores themselves instead of log10(score + 1): no factor of the weights '
        'changes them',
    )
    parser.add_argument('--device', choices=['auto', 'cpu', 'cuda'], default='auto')
    parser.add_argument(
        '--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of configs'
    )
    parser.add_argument('--out', type=Path, metavar='FILE.png', help='write the picture')
    parser.add_argument('--table', type=Path, metavar='FILE.md', help='write the table')
    parser.add_argument(
        '--scores', type=Path, metavar='FILE.npz', help='write the scores, an array a network'
    )
    return parser.parse_args(arguments)


def measure(args: argparse.Namespace) -> int:
    """Measure, print and write; the exit status."""
    import numpy as np

    from unireplknet_mm import launch
    from unireplknet_mm.files import replacing, write_text
    from unireplknet_mm.measuring import catalogue, erf, last_maps
    from unireplknet_mm.measuring.benchmark import Progress

    for name in ('out', 'table', 'scores'):
        if path := getattr(args, name):
            launch.create_folder(path.absolute().parent, f'--{name}')
    if args.out:
        erf.check_picture(args.out)
    if len(set(args.models)) < len(args.models):
        raise launch.UserError('a MODEL is named twice: name each once, or with other weights.')
    for text in args.models:
        name = text.partition('=')[0]
        if not name.endswith('.py'):
            catalogue.find_model(name)  # a misspelt one ends the run before the first is measured
    files = last_maps.find_images(args.images, args.num_images) if args.images else None
    device = launch.choose_device(args.device)
    progress, fields, status = Progress(sys.stderr), [], 0
    try:
        for text in args.models:
            fields.append(field_of(text, args, files, device, progress))
            if fields[-1].is_interrupted:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        status = INTERRUPTED
    progress.close()
    if fields:
        table = erf.markdown(fields, not args.linear)
        print(table)
        if args.table:
            write_text(args.table, f'{table}\n')
        if args.scores:
            with replacing(args.scores) as temporary, open(temporary, 'wb') as stream:
                np.savez_compressed(stream, **{f.name: f.scores.numpy() for f in fields})
        if args.out:
            erf.draw(fields, args.out, not args.linear)
    return status


def field_of(
    text: str,
    args: argparse.Namespace,
    files: list[Path] | None,
    device: str,
    progress: object,
) -> 'Field':
    """The field of one MODEL[=WEIGHTS]."""
    from unireplknet_mm.launch import UserError
    from unireplknet_mm.measuring import erf, last_maps

    name, _, weights = text.partition('=')
    model, in_channels, normalization = build(name, weights, args.cfg_options)
    if files is not None and in_channels != 3:
        raise UserError(f'{name} takes {in_channels} channels, --images has 3: leave --images out.')
    last_map = last_maps.last_map_of(model.to(device))

    def images() -> 'Iterator[Tensor]':
        if files is None:
            return last_maps.random_images(args.num_images, in_channels, args.size, device)
        return last_maps.read_images(files, args.size, normalization, device)

    count = args.num_images if files is None else len(files)
    of_weights = {'': ', random weights', 'pretrained': ''}.get(weights, f', {Path(weights).name}')
    label = (Path(name).stem if name.endswith('.py') else name) + of_weights
    return erf.measure_field(
        label, last_map, images(), lambda done: progress(f'{name}: image {done} of {count}')
    )


def build(
    name: str, weights: str, cfg_options: list[str] | None
) -> 'tuple[nn.Module, int, Normalization]':
    """A network with its weights, the channels of its input, and what images become for it."""
    from unireplknet_mm import launch
    from unireplknet_mm.configuration import find_pretrained
    from unireplknet_mm.measuring import catalogue, last_maps
    from unireplknet_mm.models.whole_model import map_channels

    normalization = last_maps.Normalization()
    is_pretrained = weights == 'pretrained'
    if name.endswith('.py'):
        cfg = launch.load_config(name, cfg_options)
        if is_pretrained:
            stated = find_pretrained(cfg.model)
            if not stated:
                raise launch.UserError(
                    f'{name} names no weights to start from: give a file after the =.'
                )
            weights = stated[0]
        with launch.explain_mistakes(cfg):
            task = catalogue.find_config_model(cfg)()
        normalization = last_maps.normalization_of(cfg)
        channels = map_channels(task.model, cfg.get('input_shape'))
    else:
        task = catalogue.find_model(name, pretrained=is_pretrained)()
        channels = 3
    if weights and weights != 'pretrained':
        last_maps.load_weights(task.model, weights)
    return task.model, channels, normalization


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    from unireplknet_mm.launch import exit_on_user_error

    if status := exit_on_user_error(measure)(args):
        sys.exit(status)


if __name__ == '__main__':
    main()
