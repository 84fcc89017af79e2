"""Evaluate the published models on COCO, ADE20K and ImageNet, and say what was measured beside the paper's.

    python tools/evaluate_zoo.py                                   # every model with figures of the paper
    python tools/evaluate_zoo.py --task det --out zoo.md
    python tools/evaluate_zoo.py --models unireplknet_t_in1k cascade_unireplknet_t_3x
    python tools/evaluate_zoo.py --task cls --demo-data            # how it works, without data and weights
    torchrun --nproc_per_node 8 tools/evaluate_zoo.py --launcher pytorch

Each model is downloaded, folded and tested with its config as it is. What is measured is kept in the work
dir, by model, weights, config, options, device and torch, images/s by batch size as well: the same command
goes on where it was interrupted, another one measures what is lacking, and both say what they took over.
Weights that the authors offer on pages alone are looked for in --checkpoints, as NAME_OF_THE_MODEL.pth.
Parameters, FLOPs and images/s are those of the deploy form at the size that the paper counts at, images/s on
random images.
"""

import argparse
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from common_options import INTERRUPTED, add_common_arguments, apply_to_environment

if TYPE_CHECKING:
    from mmengine.config import Config

    from unireplknet_mm.measuring.zoo_table import Row
    from unireplknet_mm.zoo import ZooModel


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


def measure(
    model: 'ZooModel', row: 'Row', cfg: 'Config', args: argparse.Namespace, keep: Callable[[], None]
) -> list[str]:
    """Fill the row of a model with what it lacks, from the cheap to the expensive.

    `left_out` tells what stood in the way. Each part is kept, by `keep`, as soon as it is known.

    Returns:
        What the row had already.
    """
    import torch
    from get_flops import build_on_meta, count_parts
    from mmengine.dist import is_main_process

    from unireplknet_mm import launch
    from unireplknet_mm.measuring.catalogue import find_config_model
    from unireplknet_mm.measuring.variants import Variant
    from unireplknet_mm.measuring.zoo_table import figures_of, throughput

    had, row.left_out = [], None
    launch.check_complete(cfg, 'test')
    if row.flops is None:
        parts = count_parts(build_on_meta(cfg), *model.size)
        row.parameters, row.flops = (
            sum(getattr(p, key) for p in parts) for key in ('parameters', 'flops')
        )
    build = find_config_model(cfg)
    try:
        if row.measured is None:
            row.measured = figures_of(run_test(cfg, row.weights, args))
            keep()
            gc.collect()
        else:
            had.append('scores')
        if args.no_speed:
            return had
        if str(args.batch_size) in row.speeds:
            had.append('images/s')
        elif is_main_process():
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
            variant = Variant(
                model.name, batch_size=args.batch_size, size=model.size, device=device
            )
            row.speeds[str(args.batch_size)] = throughput(
                build, variant._replace(threads=torch.get_num_threads())
            )
    except launch.UserError as error:
        print(f'{model.name} is left out: {error}', file=sys.stderr)
        row.left_out = str(error).partition('\n')[0]
    except torch.OutOfMemoryError:
        row.left_out = 'the memory of the GPU does not suffice'
        print(f'{model.name}: {row.left_out}.', file=sys.stderr)
    keep()
    return had


def evaluate_zoo(args: argparse.Namespace) -> int:
    """Measure, print and write the table; the exit status."""
    import torch
    from mmengine.dist import is_main_process

    from unireplknet_mm import launch
    from unireplknet_mm.files import check_replaceable
    from unireplknet_mm.measuring.zoo_table import (
        Row,
        file_state,
        fingerprint,
        read_rows,
        write_rows,
    )

    models = choose_models(args)
    if args.out:
        check_replaceable(args.out)
    args.work_dir = args.work_dir or os.path.join(
        'work_dirs', 'zoo_demo' if args.demo_data else 'zoo'
    )
    launch.create_folder(args.work_dir, '--work-dir')
    record = Path(args.work_dir) / 'rows.json'
    kept = read_rows(record)

    def keep() -> None:
        if is_main_process():
            write_rows(record, kept.values())

    rows, had, status = {}, {'scores': [], 'images/s': []}, 0
    try:
        for model in models:
            cfg = launch.load_config(model.config, args.cfg_options)
            cfg.work_dir = os.path.join(args.work_dir, model.name)
            launch.prepare_device(cfg, args.launcher, args.device)
            weights = '' if args.demo_data else find_weights(model, args.checkpoints)
            settings = {
                'data': 'demo' if args.demo_data else 'real',
                'config': fingerprint(cfg),
                'options': ' '.join(args.cfg_options or []),
                'device': torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu',
                'torch': torch.__version__,
                **file_state(weights),
            }
            row = Row(model.name, weights, settings)
            if not args.again:
                row = kept.get(row.identity, row)
            kept[row.identity] = rows[model.name] = row
            for part in measure(model, row, cfg, args, keep):
                had[part].append(model.name)
    except KeyboardInterrupt:
        print('Interrupted: the same command goes on from here.', file=sys.stderr)
        status = INTERRUPTED
    if is_main_process():
        for part, names in had.items():
            if names:
                print(f'Of an earlier run, from {record}: {part} of {", ".join(names)}.')
        if any(had.values()):
            print('--again measures them anew.')
        report(models, rows, args)
    return status or int(any(row.left_out for row in rows.values()))


def report(models: 'list[ZooModel]', rows: 'dict[str, Row]', args: argparse.Namespace) -> None:
    import torch

    from unireplknet_mm.files import write_text
    from unireplknet_mm.measuring import machine
    from unireplknet_mm.measuring.report import machine_line
    from unireplknet_mm.measuring.zoo_table import markdown

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    described = machine.describe_machine(device)
    described.pop('load at start', None)  # this is the end, and the load that of this run
    batch_size = None if args.no_speed else args.batch_size
    lines = [machine_line(described), '', markdown(models, rows, batch_size)]
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
