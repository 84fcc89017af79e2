"""Evaluate the published models on COCO, ADE20K and ImageNet, and say what was measured beside the paper's.

    python tools/evaluate_zoo.py                                   # every model with figures of the paper
    python tools/evaluate_zoo.py --task det --out zoo.md
    python tools/evaluate_zoo.py --models unireplknet_t_in1k cascade_unireplknet_t_3x
    python tools/evaluate_zoo.py --task cls --demo-data            # how it works, without data and weights
    torchrun --nproc_per_node 8 tools/evaluate_zoo.py --launcher pytorch

Each model is downloaded, folded and tested with its config as it is. What is measured is kept in the work
dir: the same command goes on where it was interrupted. Weights that the authors offer on pages alone are
looked for in --checkpoints, as NAME_OF_THE_MODEL.pth. Parameters, FLOPs and images/s are those of the deploy
form at the size that the paper counts at, images/s on random images.
"""

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common_options import add_common_arguments, apply_to_environment

if TYPE_CHECKING:
    from mmengine.config import Config

    from unireplknet_mm.measuring.zoo_table import Row
    from unireplknet_mm.zoo import ZooModel

INTERRUPTED = 130


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--task', nargs='+', choices=['cls', 'det', 'seg'], help='only models of these tasks'
    )
    parser.add_argument('--models', nargs='+', metavar='NAME', help='only these, by name')
    parser.add_argument('--out', metavar='FILE', help='write the table to this file, in Markdown')
    parser.add_argument(
        '--checkpoints', metavar='DIR', help='folder with NAME.pth of what cannot be downloaded'
    )
    parser.add_argument(
        '--again', action='store_true', help='measure anew what an earlier run has measured'
    )
    parser.add_argument('--no-speed', action='store_true', help='leave images/s out')
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        help='images a call when images/s are taken (default 1)',
    )
    add_common_arguments(parser)
    args = parser.parse_args()
    if args.batch_size < 1:
        parser.error(f'--batch-size takes a number of at least 1, not {args.batch_size}')
    return args


def choose_models(args: argparse.Namespace) -> 'list[ZooModel]':
    """Those that were asked for, in the order of the index.

    Raises:
        UserError: there is no model of a name, or none of the tasks.
    """
    import difflib

    from unireplknet_mm import zoo
    from unireplknet_mm.launch import UserError

    models = zoo.models()
    if args.models:
        wanted = {name: zoo.find(name) for name in args.models}
        for name, model in wanted.items():
            if model is None:
                close = difflib.get_close_matches(name, [model.name for model in models])
                raise UserError(
                    f'--models: there is no {name} in {zoo.INDEX}.\n'
                    f'{"Did you mean " + " or ".join(close) if close else "Names are those of configs"}?'
                )
        models = [model for model in models if model in wanted.values()]
    models = [model for model in models if not args.task or model.task in args.task]
    if not models:
        raise UserError(f'--models and --task {" ".join(args.task)} leave no model.')
    return models


def find_weights(model: 'ZooModel', folder: str | None) -> str:
    """The file of that model in the folder, else what is downloaded."""
    file = Path(folder or '') / f'{model.name}.pth'
    return str(file) if folder and file.is_file() else model.weights


def run_test(cfg: 'Config', weights: str, args: argparse.Namespace) -> dict[str, float]:
    """The scores of a config's model, folded; '' tests random weights.

    Raises:
        UserError: data or weights are missing, or do not fit.
    """
    from unireplknet_mm import launch

    if args.demo_data:
        launch.use_demo_data(cfg, args.cfg_options)
    else:
        launch.check_checkpoint(weights)
    launch.check_data(cfg, 'test')
    cfg.load_from, cfg.resume = weights or None, False
    cfg.test_dataloader.persistent_workers = False  # they would stay while the next model is tested
    launch.add_hook(cfg, 'SwitchToDeployHook')
    launch.create_work_dir(cfg)
    if weights:
        launch.check_content(cfg, weights)
    return launch.test(launch.build_runner(cfg))


def measure(model: 'ZooModel', row: 'Row', args: argparse.Namespace) -> None:
    """Fill the row of a model, from the cheap to the expensive; `left_out` tells what stood in the way."""
    import torch
    from get_flops import build_on_meta, count_parts
    from mmengine.dist import is_main_process

    from unireplknet_mm import launch
    from unireplknet_mm.measuring.catalogue import find_config_model
    from unireplknet_mm.measuring.variants import Variant
    from unireplknet_mm.measuring.zoo_table import figures_of, throughput

    cfg = launch.load_config(model.config, args.cfg_options)
    cfg.work_dir = os.path.join(args.work_dir, model.name)
    launch.check_complete(cfg, 'test')
    parts = count_parts(build_on_meta(cfg), *model.size)
    row.parameters, row.flops = (
        sum(getattr(p, key) for p in parts) for key in ('parameters', 'flops')
    )
    launch.prepare_device(cfg, args.launcher, args.device)
    build = find_config_model(cfg)
    try:
        row.measured = figures_of(run_test(cfg, row.weights, args))
        gc.collect()
        if not args.no_speed and is_main_process():
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
            variant = Variant(
                model.name, batch_size=args.batch_size, size=model.size, device=device
            )
            row.images_per_second = throughput(
                build, variant._replace(threads=torch.get_num_threads())
            )
    except launch.UserError as error:
        print(f'{model.name} is left out: {error}', file=sys.stderr)
        row.left_out = str(error).partition('\n')[0]
    except torch.OutOfMemoryError:
        row.left_out = 'the memory of the GPU does not suffice'


def evaluate_zoo(args: argparse.Namespace) -> int:
    """Measure, print and write the table; the exit status."""
    import torch
    from mmengine.dist import is_main_process

    from unireplknet_mm import launch
    from unireplknet_mm.files import check_replaceable
    from unireplknet_mm.measuring.zoo_table import Row, read_rows, write_rows

    models = choose_models(args)
    if args.out:
        check_replaceable(args.out)
    args.work_dir = args.work_dir or os.path.join(
        'work_dirs', 'zoo_demo' if args.demo_data else 'zoo'
    )
    launch.create_folder(args.work_dir, '--work-dir')
    record = Path(args.work_dir) / 'rows.json'
    rows = read_rows(record)
    settings = {
        'data': 'demo' if args.demo_data else 'real',
        'options': ' '.join(args.cfg_options or []),
        'device': torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
        'torch': torch.__version__,
        'batch size': 'none' if args.no_speed else str(args.batch_size),
    }
    status = 0
    try:
        for model in models:
            weights = '' if args.demo_data else find_weights(model, args.checkpoints)
            row = Row(model.name, weights, settings)
            before = rows.get(model.name)
            is_same = before and (before.weights, before.settings) == (weights, settings)
            if is_same and not before.left_out and not args.again:
                continue
            rows[model.name] = row
            measure(model, row, args)
            if is_main_process():
                write_rows(record, rows.values())
    except KeyboardInterrupt:
        del rows[model.name]
        print('Interrupted: the same command goes on from here.', file=sys.stderr)
        status = INTERRUPTED
    if is_main_process():
        report(models, rows, args)
    return status or int(any(rows[model.name].left_out for model in models))


def report(models: 'list[ZooModel]', rows: 'dict[str, Row]', args: argparse.Namespace) -> None:
    import torch

    from unireplknet_mm.files import write_text
    from unireplknet_mm.measuring import machine
    from unireplknet_mm.measuring.report import machine_line
    from unireplknet_mm.measuring.zoo_table import markdown

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    described = machine.describe_machine(device)
    described.pop('load at start', None)  # this is the end, and the load that of this run
    lines = [machine_line(described), '', markdown(models, rows)]
    if args.demo_data:
        lines += [
            '',
            'Generated images and random weights: the scores say nothing about the models.',
        ]
    text = '\n'.join(lines)
    print(text)
    if args.out:
        write_text(args.out, text + '\n')


def main() -> None:
    args = parse_args()
    apply_to_environment(args)
    from unireplknet_mm.launch import exit_on_user_error

    if status := exit_on_user_error(evaluate_zoo)(args):
        sys.exit(status)


if __name__ == '__main__':
    main()
