"""Write demo data in the layout of COCO, ADE20K or ImageNet: real digits on real photographs.

python tools/make_demo_data.py coco --out data/demo/coco --images 400
"""

import argparse
import signal
import sys

from tqdm import tqdm

from unireplknet_mm.datasets.demo import LAYOUTS, make_demo_data


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog='An existing data set of the same parameters is reused.',
    )
    parser.add_argument('layout', choices=LAYOUTS)
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the data set')
    parser.add_argument('--images', required=True, type=int, metavar='N', help='training images')
    parser.add_argument(
        '--val-images', type=int, metavar='M', help='validation images (default: a fifth of N)'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('W', 'H'),
        help='image size (default: coco 640 480, ade20k 683 512, imagenet 500 375)',
    )
    parser.add_argument('--seed', type=int, default=0, metavar='S')
    parser.add_argument(
        '--num-classes',
        type=int,
        default=10,
        metavar='K',
        help='categories of coco (default: 10); those beyond ten digits stay unused',
    )
    parser.add_argument(
        '--digits-per-image',
        type=int,
        nargs=2,
        metavar=('LEAST', 'MOST'),
        help='digits on an image (default: 2 6, imagenet 1 1)',
    )
    parser.add_argument(
        '--digit-size',
        type=float,
        nargs=2,
        metavar=('LEAST', 'MOST'),
        help="height of a digit over the image's shorter side "
        '(default: 0.14 0.40, imagenet 0.45 0.85)',
    )
    parser.add_argument(
        '--mask-format', choices=('polygon', 'rle'), default='polygon', help='masks of coco'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace other demo data at DIR, nothing else'
    )
    return parser.parse_args()


def main() -> None:
    arguments = vars(parse_args())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # clean up first
    try:
        out = make_demo_data(
            **arguments, progress=lambda jobs: tqdm(jobs, desc='demo data', unit='image')
        )
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f'error: {error}') from None
    except KeyboardInterrupt:
        raise SystemExit('interrupted: nothing was written') from None
    print(f'{arguments["layout"]} demo data: {out}')


if __name__ == '__main__':
    main()
