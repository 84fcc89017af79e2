"""Write a trained model to a file that runs without PyTorch, and see that it computes the same.

    python tools/export.py CONFIG CHECKPOINT --format onnx --out model.onnx --images photos
    python tools/export.py CONFIG CHECKPOINT --format openvino --precision int8 --out model.xml --score
    python tools/export.py CONFIG CHECKPOINT --format onnx --dynamic batch,size --out model.onnx

The model is folded first. The file takes plain pixels and gives classes, boxes or labels: mean, std and
channel order are in it, and so are NMS, masks and arg max. It is read back and compared with the model on
images, and is written only if both agree. docs/deployment.md shows how to run it.
"""

import argparse
import contextlib
import functools
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common_options import INTERRUPTED, add_cfg_options, clean_up_when_terminated, positive

FORMATS = ('onnx', 'torch-export', 'aoti', 'openvino')
PRECISIONS = ('fp32', 'fp16', 'bf16', 'int8')
DYNAMIC = ('batch', 'size')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        'checkpoint', help='checkpoint: a file, a URL, hf://OWNER/NAME/FILE or a name'
    )
    parser.add_argument('--format', choices=FORMATS, required=True, help='of the file')
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        required=True,
        help='file to write: .onnx, .pt2 (torch-export), .aoti.pt2 or .xml (openvino; a .bin comes with it)',
    )
    parser.add_argument(
        '--precision', choices=PRECISIONS, default='fp32', help='to compute in (default: fp32)'
    )
    parser.add_argument(
        '--dynamic',
        type=axes,
        default=(),
        metavar='batch,size',
        help='what may change from call to call (default: one image of one size)',
    )
    parser.add_argument(
        '--input-size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help="of the file's images (default: the config's input_shape, or what its test pipeline gives)",
    )
    parser.add_argument(
        '--images',
        nargs='+',
        metavar='DIR',
        help='files or folders to compare on (default: the test data of the config, or else demo data)',
    )
    parser.add_argument(
        '--demo-data',
        action='store_true',
        help='compare on generated data in the layout of the data set (written to data/demo)',
    )
    parser.add_argument(
        '--count', type=positive, default=20, metavar='N', help='compare on so many (default: 20)'
    )
    parser.add_argument(
        '--score',
        action='store_true',
        help="also the config's metrics of the model and of the file, on all of its test data",
    )
    parser.add_argument('--force', action='store_true', help='write a file that disagrees, too')
    parser.add_argument(
        '--backbone', action='store_true', help="export the features of the model's backbone alone"
    )
    parser.add_argument(
        '--logits', action='store_true', help='of a segmenter: the logits of every pixel as well'
    )
    parser.add_argument(
        '--letterbox',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='of a detector: the file fits pictures of any size into this one, and gives their own boxes',
    )
    parser.add_argument(
        '--paste-masks',
        action='store_true',
        help="of a detector: masks of the picture's size, not 28x28 cells of each box",
    )
    parser.add_argument(
        '--unfolded',
        action='store_true',
        help='leave out the folding, to see what it does to a format or to int8',
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.input_size and min(args.input_size) < 1:
        parser.error(f'--input-size takes two sizes of at least 1, not {args.input_size}')
    if args.letterbox:
        if min(args.letterbox) < 32:
            parser.error(f'--letterbox takes two sizes of at least 32, not {args.letterbox}')
        args.dynamic = tuple({*args.dynamic, 'size'})
    if args.backbone and args.score:
        parser.error('--backbone has features, and no scores: leave out --score')
    if args.images and (args.demo_data or args.score):
        parser.error('--images have no annotations: leave it out for --score and --demo-data')
    return args


def axes(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(',') if name)
    if not names or not set(names) <= set(DYNAMIC):
        raise argparse.ArgumentTypeError(f'{text} is not {", ".join(DYNAMIC)} or both with a comma')
    return names


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def export(args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from unireplknet_mm import launch
    from unireplknet_mm.export import FORMATS
    from unireplknet_mm.files import in_words
    from unireplknet_mm.launch import exporting

    format = FORMATS[args.format]
    exporting.check_order(args.out, format, args.precision)
    cfg = launch.load_config(args.config, args.cfg_options)
    exporting.add_test_pipeline(cfg)
    launch.check_complete(cfg, 'export')
    if args.score:
        exporting.check_scored(cfg)
    launch.check_checkpoint(args.checkpoint)
    launch.prepare_device(cfg, 'none', 'cpu')
    if not args.images and (args.demo_data or not exporting.has_test_data(cfg)):
        say('Comparing on demo data.' if args.demo_data else 'No test data are there: demo data.')
        launch.use_demo_data(cfg, args.cfg_options)
    tested, padding = cfg, None
    if args.letterbox:
        cfg, padding = exporting.without_fitting(cfg)
    steps = exporting.Steps(say)
    with steps('building the model'):
        asked = dict(
            logits=args.logits,
            letterbox=args.letterbox,
            padding=padding,
            pasted_masks=args.paste_masks,
        )
        options = {name: value for name, value in asked.items() if value}
        deployable, metadata = exporting.load_deployable(
            cfg, args.checkpoint, args.config, not args.unfolded, args.backbone, **options
        )
    order = exporting.Order(
        format,
        args.precision,
        args.dynamic,
        args.out,
        exporting.sample_shape(cfg, deployable, args.input_size or args.letterbox),
        count=args.count,
        forced=args.force,
    )
    deployable.dynamic_shapes(args.dynamic)
    samples = exporting.Samples(deployable, order)
    with steps('reading inputs'):

        def read() -> Iterator[exporting.Sample]:
            return samples.of_files(cfg, args.images) if args.images else samples.of_data(cfg)

        source = read()
        # Of a sample of several views one, as the file takes it.
        number = exporting.CALIBRATION_INPUTS if args.precision == 'int8' else 0
        calibration = [batch[:1] for _, batch in itertools.islice(source, number)]
        # Of others than those that ranges are measured on, where there are enough.
        chosen = list(itertools.islice(source, args.count))
        if calibration and len(chosen) < args.count:
            chosen = list(itertools.islice(read(), args.count))
    for line in samples.left_out(args.images or ()):
        say(line)
    if not chosen:
        raise launch.UserError('no input could be read: name others with --images.')
    scores: dict[str, dict[str, float]] = {}
    if args.score:
        with steps('scoring the model'):
            scores['model'] = exporting.score(tested, deployable.model)

    def judge(run: Any) -> dict[str, Any]:
        if not args.score:
            return {}
        with steps('scoring the file'):
            scores['file'] = exporting.score(cfg, exporting.FileModel(run, samples))
        return dict(scores=scores)

    comparison = exporting.write(
        deployable,
        order,
        metadata,
        chosen,
        calibration,
        steps,
        judge,
        progress=functools.partial(tqdm, unit='input', disable=None, leave=False),
    )
    for line in comparison.lines():
        print(line, file=args.output)
    for name, value in scores.get('model', {}).items():
        print(f'{name}: model {value:.4g}, file {scores["file"][name]:.4g}', file=args.output)
    size = sum(part.stat().st_size for part in format.parts(args.out))
    print(
        f'Wrote {args.out} ({in_words(size)}), compared on {comparison.inputs()}.',
        file=args.output,
    )
    if advice := format.advice(args.precision):
        print(advice, file=args.output)
    print(steps.line(), file=args.output)


def main() -> None:
    args = parse_args()
    os.environ['CUDA_VISIBLE_DEVICES'] = ''  # files are written and compared on the CPU
    clean_up_when_terminated()
    args.output = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no result
            from unireplknet_mm.launch import exit_on_user_error

            exit_on_user_error(export)(args)
    except KeyboardInterrupt:
        say('Interrupted: nothing was written.')
        sys.exit(INTERRUPTED)


if __name__ == '__main__':
    main()
