"""Write demo data in the layout of a data set. Of images: real digits on real photographs.

python tools/make_demo_data.py coco --out data/demo/coco --images 400
python tools/make_demo_data.py coco --help
"""

import argparse
import contextlib

from common_options import clean_up_when_terminated

from unireplknet_mm.datasets import make_demo_data
from unireplknet_mm.datasets.layouts import LAYOUTS
from unireplknet_mm.launch import exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='layout', required=True, metavar='LAYOUT')
    for name, layout in LAYOUTS.items():
        description = (
            f'Demo data in the layout of {layout.title or layout.dataset_types[0]}: '
            f'{", ".join(layout.files)}.'
        )
        options = commands.add_parser(
            name,
            help=description,
            description=f'{description} An existing data set of the same parameters is reused.',
        )
        options.add_argument('--out', required=True, metavar='DIR', help='folder of the data set')
        options.add_argument(
            '--images',
            required=True,
            type=int,
            metavar='N',
            help=f'number of {layout.samples} for training',
        )
        options.add_argument(
            '--val-images', type=int, metavar='M', help='for validation (default: a fifth of N)'
        )
        layout.add_options(options)
        options.add_argument(
            '--overwrite', action='store_true', help='replace other demo data at DIR, nothing else'
        )
    return parser.parse_args()


def write(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    clean_up_when_terminated()
    samples = LAYOUTS[args.layout].samples

    def show_progress(jobs: list) -> tqdm:
        bar = tqdm(jobs, desc='demo data', unit=f' {samples}')
        return bars.enter_context(contextlib.closing(bar))

    try:
        with contextlib.ExitStack() as bars:  # whose line ends before an error is printed
            out = make_demo_data(**vars(args), progress=show_progress)
    except KeyboardInterrupt:
        raise SystemExit('interrupted: nothing was written') from None
    print(f'{args.layout} demo data: {out}')


def main() -> None:
    exit_on_user_error(write)(parse_args())


if __name__ == '__main__':
    main()
