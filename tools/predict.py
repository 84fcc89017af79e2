"""Predict for images, recordings, videos or point clouds of your own with any config, and draw the results.

python tools/predict.py configs/det/cascade_unireplknet_t_3x.py CHECKPOINT street.jpg --out results
python tools/predict.py configs/seg/upernet_unireplknet_t_160k.py CHECKPOINT photos --recursive
python tools/predict.py configs/cls/unireplknet_t_in1k.py unireplknet_t_in1k cat.jpg --top 3

Prints a line an input: of a classifier the best classes and their scores, of a detector what was found, of a
segmenter the share of each class. --out DIR writes DIR/pictures and DIR/predictions.json, which
docs/prediction.md describes. An input that cannot be read is reported; the others are predicted, and the
exit status is 1.
"""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from common_options import INTERRUPTED, add_cfg_options, add_checkpoint, positive

if TYPE_CHECKING:
    import numpy as np

    from unireplknet_mm.launch.predicting import Failure
    from unireplknet_mm.launch.prediction_folder import PredictionFolder
    from unireplknet_mm.modalities.inputs import InputKind
    from unireplknet_mm.modalities.predictions import Prediction

BROKEN_PIPE = 141  # as a shell has it
NAMES_SHOWN = 3


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    add_checkpoint(parser)
    parser.add_argument(
        'inputs',
        nargs='+',
        metavar='INPUT',
        help='a file of the kind that the config reads, or a folder',
    )
    parser.add_argument(
        '--recursive', action='store_true', help='search the folders in a folder as well'
    )
    parser.add_argument(
        '--out', metavar='DIR', help='write pictures and predictions.json to this folder'
    )
    parser.add_argument('--show', action='store_true', help='show the pictures in a window')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=0,
        help='seconds that --show shows a picture (default: until a key)',
    )
    parser.add_argument(
        '--top',
        type=positive,
        metavar='K',
        help='name the K best classes (default: 5), boxes or classes of a map (default: all)',
    )
    parser.add_argument(
        '--score-thr',
        type=share,
        metavar='SCORE',
        help='leave out what has at most this score (default: 0.3 for boxes, 0 for classes)',
    )
    parser.add_argument(
        '--batch-size',
        type=positive,
        metavar='N',
        help="inputs at a time (default: the config's for tests)",
    )
    parser.add_argument(
        '--deploy',
        action='store_true',
        help='re-parameterize the model first; a checkpoint of reparameterize.py needs no option',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--device',
        choices=['auto', 'cpu', 'cuda'],
        default='auto',
        help='auto (default): the GPU, if there is one',
    )
    return parser.parse_args()


def share(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not from 0 to below 1')
    return number


def report(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def report_skipped(others: list, kind: 'InputKind') -> None:
    """Name the files in folders that are no inputs, once."""
    if others:
        names = ', '.join(str(path) for path in others[:NAMES_SHOWN])
        more = f' and {len(others) - NAMES_SHOWN} more' if len(others) > NAMES_SHOWN else ''
        report(f'{len(others)} file(s) skipped that are no {kind.name}: {names}{more}')


def check_display() -> None:
    """See that a window can be opened.

    Raises:
        UserError: none can.
    """
    from matplotlib import pyplot

    from unireplknet_mm.launch import UserError

    is_x11 = sys.platform == 'linux'
    if is_x11 and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        raise UserError('--show: there is no display here; --out DIR writes the pictures.')
    backend = pyplot.get_backend().lower()
    if backend in ('agg', 'cairo', 'pdf', 'pgf', 'ps', 'svg', 'template'):
        raise UserError(
            f'--show: matplotlib opens no windows here (its backend is {backend}): pip install PyQt6, or '
            'write the pictures with --out DIR.'
        )


def predict(args: argparse.Namespace) -> int:
    """Predict, print, draw and write; the exit status."""
    from unireplknet_mm import launch
    from unireplknet_mm.launch import predicting
    from unireplknet_mm.launch.prediction_folder import PredictionFolder
    from unireplknet_mm.modalities.inputs import find_inputs, find_kind

    cfg = launch.load_config(args.config, args.cfg_options)
    launch.check_complete(cfg, 'predict')
    pipeline = predicting.test_pipeline(cfg)
    kind = find_kind(pipeline)
    inputs, others = find_inputs(args.inputs, kind, args.recursive)
    launch.check_checkpoint(args.checkpoint)
    if args.show:
        check_display()
    launch.prepare_device(cfg, 'none', args.device)
    folder = PredictionFolder(args.out, inputs, kind.picture_suffix) if args.out else None
    report_skipped(others, kind)
    launch.check_content(cfg, args.checkpoint)
    model, meta = predicting.load_model(cfg, args.checkpoint, args.deploy)
    kind.watch(model)
    dataset = predicting.InputDataset([path for path, _ in inputs], kind, pipeline, cfg)
    labels = predicting.find_labels(cfg, meta)

    def read(result: predicting.Result | predicting.Failure) -> Any:
        if isinstance(result, predicting.Failure):
            return result
        return predicting.read_result(result, labels, args.top, args.score_thr)

    def draw(prediction: 'Prediction') -> 'np.ndarray':
        return kind.draw(prediction, dataset.transforms, cfg)

    outcomes = map(read, predicting.Predictor(model, cfg, args.batch_size)(dataset))
    document = dict(
        config=args.config,
        checkpoint=args.checkpoint,
        deploy=args.deploy,
        classes=labels.names,
        complete=True,
        predictions=[],
        failures=[],
    )
    try:
        take_all(outcomes, len(inputs), kind, draw, folder, args, document)
    except KeyboardInterrupt:
        document['complete'] = False
    if folder:
        results = folder.write_results(document)
        report(f'Results are in {results}, pictures beside it.')
    failures = len(document['failures'])
    if failures:
        report(f'{failures} of {len(inputs)} inputs failed.')
    return INTERRUPTED if not document['complete'] else 1 if failures else 0


def take_all(
    outcomes: Iterator['Prediction | Failure'],
    count: int,
    kind: 'InputKind',
    draw: Callable[['Prediction'], 'np.ndarray'],
    folder: 'PredictionFolder | None',
    args: argparse.Namespace,
    document: dict[str, Any],
) -> None:
    """Print each of `count` outcomes, draw it where that is asked for, and add it to the document."""
    from mmengine.visualization import Visualizer
    from tqdm import tqdm

    from unireplknet_mm.files import naming_disks
    from unireplknet_mm.launch.predicting import Failure, summarize

    def fail(path: object, reason: str) -> None:
        progress.write(f'error: {path}: {reason}', file=sys.stderr)
        document['failures'].append(dict(input=str(path), reason=reason))

    folders = [folder.folder] if folder else []
    is_silent = None if count > 1 else True  # None: where stderr is no terminal
    window = Visualizer('predictions') if args.show else None
    with naming_disks(*folders), tqdm(total=count, disable=is_silent, unit='input') as progress:
        for outcome in outcomes:
            progress.update()
            if isinstance(outcome, Failure):
                fail(*outcome)
                continue
            progress.write(f'{outcome.path}: {outcome.line()}', file=args.output)
            if explanation := kind.explain(outcome):
                progress.write(f'note: {outcome.path}: {explanation}', file=sys.stderr)
            record = dict(input=str(outcome.path), picture=None, **outcome.record())
            document['predictions'].append(record)
            if not folder and not window:
                continue
            try:
                picture = draw(outcome)
            except Exception as error:  # a picture less, and not the end of a long run
                fail(outcome.path, f'it cannot be drawn: {summarize(error)}')
                continue
            if folder:
                record['picture'] = folder.write_picture(outcome.path, picture).as_posix()
            if window:
                window.show(picture, str(outcome.path), args.wait_time)


def main() -> None:
    args = parse_args()
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    # File names may hold what no encoding has; and what libraries print is no prediction.
    sys.stdout.reconfigure(errors='backslashreplace')
    args.output = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        from unireplknet_mm.launch import exit_on_user_error

        try:
            status = exit_on_user_error(predict)(args)
        except BrokenPipeError:  # whoever read the lines has gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), args.output.fileno())
            status = BROKEN_PIPE
    if status:
        sys.exit(status)


if __name__ == '__main__':
    main()
