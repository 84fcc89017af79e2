"""Put UniRepLKNet into any mmdet, mmseg or mmpretrain config: write a short config that inherits it.

    python tools/swap_backbone.py mmdet::retinanet/retinanet_r50_fpn_1x_coco.py --arch t \\
        --pretrained unireplknet_t_in1k --out my_retinanet.py

Everything that depends on the backbone is adapted: normalisation, neck, heads, optimiser. The docstring of
the written config says what was changed and why. Before that, its model is built and gives a loss with
finite gradients on random images. docs/swapping.md lists what was tried.
"""

import argparse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'config', help='config file, or mmdet::FOLDER/NAME.py for one of an installed package'
    )
    parser.add_argument('--arch', default='t', help='a f p n t s b l xl h (default: t)')
    parser.add_argument('--out', required=True, metavar='FILE', help='config to write')
    parser.add_argument(
        '--pretrained',
        metavar='NAME',
        help='weights to start from: a published name, a file, a URL, hf://OWNER/NAME/FILE',
    )
    parser.add_argument(
        '--layer-decay',
        nargs='?',
        const=True,
        type=float,
        metavar='RATE',
        help='train each layer of the backbone at a rate of its own, RATE times that of the layer behind it '
        '(default: the published rate)',
    )
    parser.add_argument(
        '--output-stride',
        type=int,
        choices=[8, 16, 32],
        help='for segmentation: let the last stages keep the resolution (default: 32)',
    )
    parser.add_argument(
        '--keep-optimizer', action='store_true', help='leave SGD and its learning rate as they are'
    )
    args = parser.parse_args()
    if isinstance(args.layer_decay, float) and not 0 < args.layer_decay <= 1:
        parser.error(f'--layer-decay takes a RATE above 0 and up to 1, not {args.layer_decay:g}')
    return args


def swap(args: argparse.Namespace) -> None:
    from mmengine.logging import MMLogger

    from unireplknet_mm.swapping import swap_backbone

    MMLogger.get_current_instance().setLevel('WARNING')  # building a model logs every setting

    swapped = swap_backbone(
        args.config,
        args.arch,
        out=args.out,
        pretrained=args.pretrained,
        layer_decay=args.layer_decay,
        output_stride=args.output_stride,
        keep_optimizer=args.keep_optimizer,
    )
    print(f'Wrote {args.out}, {len(swapped.changes)} changes:')
    for change in swapped.changes:
        print(f'  {change.place}: {change.what}\n      {change.why}')
    for warning in swapped.warnings:
        print(f'Mind: {warning}')
    print(swapped.trial)


def main() -> None:
    args = parse_args()
    from unireplknet_mm.launch import exit_on_user_error

    exit_on_user_error(swap)(args)


if __name__ == '__main__':
    main()
