"""Evaluate a checkpoint with any config of the suite, whatever its task.

python tools/test.py configs/det/cascade_unireplknet_s_3x.py CHECKPOINT
python tools/test.py configs/seg/upernet_unireplknet_t_160k.py CHECKPOINT --deploy --tta
bash tools/dist_test.sh configs/cls/unireplknet_t_in1k.py CHECKPOINT 8
"""

import argparse
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from common_options import add_checkpoint, add_common_arguments, apply_to_environment

if TYPE_CHECKING:
    from mmengine.config import Config

# By the config's default scope: what writes predictions in a size that can be kept.
DUMPS = dict(mmdet='DumpDetResults', mmseg='DumpLabelMaps')
PICTURES = ('.png', '.pdf', '.svg')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    add_checkpoint(parser)
    add_common_arguments(parser)
    parser.add_argument(
        '--deploy',
        action='store_true',
        help='re-parameterize the model first; a checkpoint of reparameterize.py needs no option',
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation, as the config defines it'
    )
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to a pickle file')
    parser.add_argument(
        '--confusion-matrix',
        metavar='FILE.png',
        help='draw which classes a classifier takes for which (or FILE.pdf, FILE.svg)',
    )
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='write images with the predictions to this folder')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that --show shows an image'
    )
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out takes a file name that ends with .pkl, not {args.out}')
    matrix = args.confusion_matrix
    if matrix and not matrix.lower().endswith(PICTURES):
        parser.error(f'--confusion-matrix takes a name with {", ".join(PICTURES)}, not {matrix}')
    return args


def use_tta(cfg: 'Config') -> None:
    """Wrap the model in the config's `tta_model`, with `tta_pipeline` for the test data."""
    from unireplknet_mm.configuration import innermost_datasets
    from unireplknet_mm.launch import UserError

    missing = [key for key in ('tta_model', 'tta_pipeline') if key not in cfg]
    if missing:
        raise UserError(f'--tta: the config defines no {" and no ".join(missing)}.')
    for dataset in innermost_datasets(cfg.test_dataloader.dataset):
        dataset['pipeline'] = cfg.tta_pipeline
    cfg.model = dict(cfg.tta_model, module=cfg.model)


def draw_predictions(cfg: 'Config', show: bool, show_dir: str | None, wait_time: float) -> None:
    """Switch on the visualization hook of the config. Those of the three tasks differ in names."""
    from unireplknet_mm.configuration import type_name
    from unireplknet_mm.launch import UserError

    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError('--show: the config has no default_hooks.visualization.')
    folder = os.path.abspath(show_dir) if show_dir else None
    kind = type_name(hook)
    hook.update(show=show, wait_time=wait_time, interval=1)
    if kind == 'VisualizationHook':
        hook.update(enable=True, out_dir=folder)
    elif kind == 'DetVisualizationHook':
        hook.update(draw=True, test_out_dir=folder)
    else:
        hook.draw = True
        if folder:
            cfg.visualizer.save_dir = folder


def check_single_label(cfg: 'Config') -> None:
    """See that samples have one class, predicted and true.

    Raises:
        UserError: the config's model predicts something else.
    """
    from unireplknet_mm.configuration import type_name
    from unireplknet_mm.launch import UserError

    head = type_name(cfg.model.get('head') or {})
    if cfg.get('default_scope') != 'mmpretrain' or not head or head.startswith('MultiLabel'):
        raise UserError(
            '--confusion-matrix is for classifiers of one label, which the model of the config is not.'
        )


def test(args: argparse.Namespace) -> None:
    from unireplknet_mm import launch
    from unireplknet_mm.files import check_replaceable, naming_disks

    cfg = launch.load_config(args.config, args.cfg_options)
    launch.check_complete(cfg, 'test')
    launch.set_work_dir(cfg, args.work_dir, args.demo_data)
    launch.prepare_device(cfg, args.launcher, args.device)
    launch.check_checkpoint(args.checkpoint)
    for path in filter(None, (args.out, args.confusion_matrix)):
        check_replaceable(path)
    if args.confusion_matrix:
        check_single_label(cfg)
    if args.demo_data:
        launch.use_demo_data(cfg, args.cfg_options)
    launch.check_data(cfg, 'test')
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.deploy:
        launch.add_hook(cfg, 'SwitchToDeployHook')
    if args.tta:
        use_tta(cfg)
    if args.show or args.show_dir:
        draw_predictions(cfg, args.show, args.show_dir, args.wait_time)
    launch.create_work_dir(cfg)
    if args.show_dir:
        launch.create_folder(args.show_dir, '--show-dir')
    if args.out:
        launch.create_folder(Path(args.out).parent, '--out')
    if args.confusion_matrix:
        launch.create_folder(Path(args.confusion_matrix).parent, '--confusion-matrix')
    launch.check_content(cfg, cfg.load_from)
    folders = [cfg.work_dir, args.show_dir] if args.show_dir else [cfg.work_dir]
    with naming_disks(*folders):
        evaluate(cfg, args.out, args.confusion_matrix)


def evaluate(cfg: 'Config', out: str | None, matrix: str | None) -> None:
    """Run the test of a config; write the predictions and the confusion matrix to files, if any."""
    from mmengine.registry import METRICS

    from unireplknet_mm import launch

    runner = launch.build_runner(cfg)
    if matrix:
        from unireplknet_mm.modalities.confusion_matrix import DrawnConfusionMatrix

        metric = DrawnConfusionMatrix(matrix)
        metric.dataset_meta = runner.test_evaluator.dataset_meta
        runner.test_evaluator.metrics.append(metric)
    if not out:
        launch.test(runner)
        return

    kind = DUMPS.get(cfg.get('default_scope'), 'DumpResults')
    dump = METRICS.build(dict(type=kind, out_file_path=out))
    dump.compute_metrics = functools.partial(write_predictions, out)
    dump.dataset_meta = runner.test_evaluator.dataset_meta
    runner.test_evaluator.metrics.append(dump)
    launch.test(runner)
    runner.logger.info(f'Predictions are in {out}.')


def write_predictions(path: str, results: list) -> dict[str, float]:
    """In place of `DumpResults.compute_metrics`, to which the main process hands the results of all.

    The file is the whole new one or, whatever happens, the one that was there.
    """
    from mmengine.fileio import dump

    from unireplknet_mm.files import replacing

    with replacing(path, keep_extension=True) as partial:
        dump(results, partial)
    return {}


def main() -> None:
    args = parse_args()
    apply_to_environment(args)
    from unireplknet_mm.launch import exit_on_user_error

    exit_on_user_error(test)(args)


if __name__ == '__main__':
    main()
