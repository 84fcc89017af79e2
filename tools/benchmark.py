"""Measure models: images/s, latency (p50, p95) and peak memory, in turn, in one process.

    python tools/benchmark.py unireplknet_t convnext_tiny                  # inference
    python tools/benchmark.py unireplknet_t convnext_tiny --mode step      # forward, loss, backward, AdamW
    python tools/benchmark.py unireplknet_s --form train deploy --compile no yes --dtype fp32 bf16
    python tools/benchmark.py configs/det/cascade_unireplknet_t_3x.py --batch-size 1 --size 480x640
    python tools/benchmark.py --table5 --docs docs/benchmarks.md   # also --table1, --table18, --settings

MODEL is a config, an arch of the suite (unireplknet_t), replknet_31b, slak_t, or a name of timm (if it is
installed) or mmpretrain; timm:NAME and mmpretrain:NAME where both have it; or FILE.py:FUNCTION, the network
that a function of a Python file returns. Options with several values are combined. In each combination of
mode, batch size, input size, dtype and threads the models take turns, and "times the first" is against the
first row. Each is compared with its plain form (training structure, float32, NCHW, torch's own convolution,
not compiled); one that computes something else is compared with nothing, and the exit status is 1. Ctrl-C
or SIGTERM ends the measurement and reports what there is. Measure on an idle machine.
"""

import argparse
import itertools
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common_options import INTERRUPTED, positive

if TYPE_CHECKING:
    from unireplknet_mm.measuring.benchmark import Benchmark, Group, Progress, Result
    from unireplknet_mm.measuring.catalogue import Build
    from unireplknet_mm.measuring.tables import Plan

TABLES = dict(
    table1="The paper's Table 1: the convolution alone",
    table5="The paper's Table 5: ImageNet classifiers",
    table18="The paper's Table 18: what the branches cost in training",
    settings='What settings cost',
)
# What the tables set themselves.
SET_BY_ALL = ('mode', 'form', 'size', 'compile', 'implementation')
SET_BY = dict(
    table1=(
        *SET_BY_ALL,
        'layout',
        'rounds',
        'warm_up',
        'no_memory',
        'cfg_options',
        'csv',
        'picture',
    ),
    table5=(*SET_BY_ALL, 'cfg_options'),
    table18=(*SET_BY_ALL, 'cfg_options', 'picture'),
    settings=(*SET_BY_ALL, 'dtype', 'layout', 'picture'),
)
OUTPUTS = ('markdown', 'csv', 'json', 'picture', 'docs')
INTERRUPTION = 'Interrupted: the rest was not measured.'


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('models', nargs='*', metavar='MODEL', help='what to measure, see above')
    what = parser.add_argument_group('what is measured')
    tables = what.add_mutually_exclusive_group()
    tables.add_argument('--table1', action='store_true', help="the paper's: the convolution alone")
    tables.add_argument('--table5', action='store_true', help="the paper's: ImageNet classifiers")
    tables.add_argument('--table18', action='store_true', help="the paper's: cost of training")
    tables.add_argument(
        '--settings',
        action='store_true',
        help='what settings of a user cost that should cost nothing; MODEL: default unireplknet_t',
    )
    add = what.add_argument
    add('--mode', nargs='+', choices=['forward', 'step'], default=['forward'])
    add('--form', nargs='+', choices=['train', 'deploy'], help='default: deploy; train for steps')
    add('--batch-size', nargs='+', type=positive, metavar='N', help='default: 8, 128 on a GPU')
    add(
        '--size',
        nargs='+',
        type=image_size,
        metavar='PIXELS',
        help='224 or 480x640; default: what the configs state as input_shape, else 224',
    )
    add('--dtype', nargs='+', choices=['fp32', 'bf16', 'fp16'], default=['fp32'])
    add(
        '--layout',
        nargs='+',
        choices=['NCHW', 'channels_last', 'better'],
        help='better: both are measured, and of each model the faster one counts; default: NCHW, '
        'for --table5 and --table18 better',
    )
    add('--compile', nargs='+', choices=['no', 'yes'], default=['no'], help='torch.compile')
    add(
        '--implementation',
        nargs='+',
        choices=['auto', 'native', 'op'],
        default=['auto'],
        help="of the suite's depthwise convolutions",
    )
    add('--threads', nargs='+', type=positive, metavar='N', help='default: what torch takes')
    add('--device', choices=['auto', 'cpu', 'cuda'], default='auto')
    add('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of configs')
    how = parser.add_argument_group('how')
    how.add_argument('--rounds', type=positive, default=20, help='timed calls of each (20)')
    how.add_argument('--warm-up', type=not_negative, default=2, help='calls before them (2)')
    how.add_argument('--no-memory', action='store_true', help='leave the peak memory out')
    output = parser.add_argument_group('output, beside the table on the screen')
    output.add_argument('--markdown', type=Path, metavar='FILE')
    output.add_argument('--csv', type=Path, metavar='FILE')
    output.add_argument('--json', type=Path, metavar='FILE', help='every time of every call')
    output.add_argument(
        '--picture', type=Path, metavar='FILE.png', help="the papers' accuracy against throughput"
    )
    output.add_argument(
        '--docs', type=Path, metavar='FILE', help='put the tables into a page, in place of old ones'
    )
    output.add_argument('--section', help='of the page (default: the name of the table)')
    args = parser.parse_args(arguments)
    args.table = next((name for name in TABLES if getattr(args, name)), None)
    if not args.models and args.table is None:
        parser.error('name a MODEL, or one of --table1, --table5, --table18, --settings')
    for name in SET_BY.get(args.table, ()):
        if getattr(args, name) != parser.get_default(name):
            parser.error(f'--{args.table} does not take --{name.replace("_", "-")}')
    takes_better = args.table in ('table5', 'table18')
    args.layout = args.layout or (['better'] if takes_better else ['NCHW'])
    if args.models and args.table not in (None, 'settings'):
        parser.error(f'--{args.table} takes no MODEL: its models are those of the paper')
    if args.table == 'settings' and len(args.models) > 1:
        parser.error('--settings takes one MODEL')
    several = (args.batch_size, args.threads, args.dtype)
    if args.table and any(len(values or ()) > 1 for values in several):
        parser.error(f'--{args.table} takes one --batch-size, one --threads and one --dtype')
    for first, second in itertools.combinations(OUTPUTS, 2):
        path, other = (getattr(args, name) for name in (first, second))
        if path and other and path.absolute() == other.absolute():
            parser.error(f'--{first} and --{second} name the same file')
    if args.docs and not (args.table or args.section):
        parser.error('--docs needs --section NAME where no table gives its name')
    return args


def not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f'{text} is negative')
    return number


def image_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'(\d+)(?:x(\d+))?', text)
    if not match or int(match[1]) < 1 or int(match[2] or match[1]) < 1:
        raise argparse.ArgumentTypeError(f'{text} is not of the form 224 or 480x640')
    return int(match[1]), int(match[2] or match[1])


def benchmark(args: argparse.Namespace) -> int:
    import torch

    from unireplknet_mm import launch
    from unireplknet_mm.measuring import report
    from unireplknet_mm.measuring.benchmark import Progress
    from unireplknet_mm.measuring.machine import describe, refuse_busy_machine

    device = launch.choose_device(args.device)
    threads = args.threads or [torch.get_num_threads()]
    for name in OUTPUTS:
        if path := getattr(args, name):
            launch.create_folder(path.absolute().parent, f'--{name}')
            if path.is_dir():
                raise launch.UserError(f'--{name}: {path} is a folder.')
    machine = describe(device)
    if args.docs:
        refuse_busy_machine(machine)
    print(report.machine_line(machine), flush=True)
    progress = Progress()
    if args.table == 'table1':
        return run_table_1(args, machine, threads[0], device, progress)
    return run_models(args, machine, threads, device, progress)


def run_models(
    args: argparse.Namespace,
    machine: dict[str, str],
    threads: list[int],
    device: str,
    progress: 'Progress',
) -> int:
    """Measure models, print and write what was asked for; the exit status."""
    from unireplknet_mm.files import write_text
    from unireplknet_mm.measuring import report
    from unireplknet_mm.measuring.benchmark import Benchmark, keep_better_layouts

    plan, render = make_plan(args, threads, device)
    if args.picture:
        report.check_picture(args.picture, [one for group in plan.groups for one in group.variants])
    running = Benchmark(plan.builds, args.rounds, args.warm_up, not args.no_memory, progress)
    results = running.run(plan.groups)
    progress.close()
    best = keep_better_layouts(results) if 'better' in args.layout else results
    text = render(best)
    print(text)
    if args.csv:
        write_text(args.csv, report.to_csv(results))
    if args.json:
        write_text(args.json, report.to_json(results, machine, command_line()))
    status = exit_status(running, results)
    write_markdown(args, machine, text, complete=status == 0)
    if args.picture:
        report.draw(best, args.picture, report.machine_line(machine))
    return status


def make_plan(
    args: argparse.Namespace, threads: list[int], device: str
) -> 'tuple[Plan, Callable[[Sequence[Result]], str]]':
    """What to measure, and how its results read."""
    from unireplknet_mm.measuring import report, tables

    batch_size = args.batch_size[0] if args.batch_size else None
    common = (threads[0], device)
    if args.table == 'table5':
        plan = tables.table_5_plan(batch_size, args.dtype[0], all_layouts(args.layout), *common)
        return plan, lambda results: tables.table_5_markdown(results, plan.left_out)
    if args.table == 'table18':
        plan = tables.table_18_plan(batch_size, args.dtype[0], all_layouts(args.layout), *common)
        return plan, tables.table_18_markdown
    builds, default_size = find_builds(args.models or ['unireplknet_t'], args.cfg_options)
    if args.table == 'settings':
        name, build = next(iter(builds.items()))
        return tables.settings_plan(name, build, batch_size, *common), tables.settings_markdown
    groups = combine(args, args.size or [default_size], tuple(builds), threads, device)
    return tables.Plan(groups, builds), report.markdown


def find_builds(
    names: 'Sequence[str]', cfg_options: list[str] | None
) -> 'tuple[dict[str, Build], tuple[int, int]]':
    """What builds each model, by its name, and the size of the input where no other is asked for.

    A config's name is that of its file, with its folders where two have the same. The size is what the
    configs state, if they agree, else 224×224.
    """
    from unireplknet_mm import launch
    from unireplknet_mm.measuring import catalogue

    builds, sizes = {}, set()
    stems = [Path(name).stem for name in dict.fromkeys(names)]
    for name in names:
        if name.endswith('.py'):
            cfg = launch.load_config(name, cfg_options)
            explaining = launch.explain_mistakes(cfg)
            stem = Path(name).stem
            builds[stem if stems.count(stem) == 1 else name] = explaining(
                catalogue.find_config_model(cfg)
            )
            sizes.add(launch.input_size(cfg))
        else:
            builds[name] = catalogue.find_model(name)
            sizes.add(None)
    stated = sizes.pop() if len(sizes) == 1 else None
    return builds, stated or (224, 224)


def combine(
    args: argparse.Namespace,
    sizes: 'Sequence[tuple[int, int]]',
    names: 'Sequence[str]',
    threads: list[int],
    device: str,
) -> 'tuple[Group, ...]':
    """A group for each mode, batch size, input size, dtype and number of threads."""
    from unireplknet_mm.measuring.benchmark import Group
    from unireplknet_mm.measuring.variants import Variant

    batch_sizes = args.batch_size or [128 if device == 'cuda' else 8]
    groups = []
    settings = itertools.product(args.mode, batch_sizes, sizes, args.dtype, threads)
    for mode, batch_size, size, dtype, count in settings:
        forms = args.form or ['deploy' if mode == 'forward' else 'train']
        ways = itertools.product(
            names, forms, args.compile, args.implementation, all_layouts(args.layout)
        )
        variants = [
            Variant(
                *(name, form, mode, batch_size, size, dtype, layout),
                compiled=compiled == 'yes',
                implementation=implementation,
                threads=count,
                device=device,
            )
            for name, form, compiled, implementation, layout in ways
        ]
        what = 'inference' if mode == 'forward' else 'training step'
        where = f'{count} threads' if device == 'cpu' else 'GPU'
        title = f'{what}, batch {batch_size}, {size[0]}×{size[1]}, {dtype}, {where}'
        groups.append(Group(title, tuple(variants)))
    return tuple(groups)


def all_layouts(layouts: list[str]) -> list[str]:
    return ['NCHW', 'channels_last'] if 'better' in layouts else layouts


def run_table_1(
    args: argparse.Namespace,
    machine: dict[str, str],
    threads: int,
    device: str,
    progress: 'Progress',
) -> int:
    """Measure the convolution alone; the exit status."""
    from unireplknet_mm.launch import UserError
    from unireplknet_mm.measuring import tables
    from unireplknet_ops import library
    from unireplknet_ops.results import write_json

    if (missing := library.missing(device)) is not None:
        raise UserError(f'--table1: the op cannot run on {device}: {missing}')
    batch_size = args.batch_size[0] if args.batch_size else 64 if device == 'cuda' else 4
    times, status = [], 0
    try:
        for stack in tables.measure_table_1(batch_size, args.dtype[0], threads, device, progress):
            times.append(stack)
    except KeyboardInterrupt:
        status = INTERRUPTED
    progress.close()
    text = tables.table_1_markdown(times, batch_size)
    print(text)
    measured = [stack._asdict() for stack in times]
    write_json(args.json, dict(machine=machine, command=command_line(), table_1=measured))
    if status == INTERRUPTED:
        print(INTERRUPTION, file=sys.stderr)
    status = status or int(any(stack.left_out for stack in times))
    write_markdown(args, machine, text, complete=status == 0)
    return status


def write_markdown(
    args: argparse.Namespace, machine: dict[str, str], text: str, complete: bool
) -> None:
    """The tables with machine, date and command, into a file and, where all is there and right, a page."""
    from unireplknet_mm.files import write_text
    from unireplknet_mm.measuring import report

    name = args.section or TABLES.get(args.table, 'Models')
    text = f'## {name}\n\n{report.machine_line(machine)}\n\n    {command_line()}\n\n{text}\n'
    if args.markdown:
        write_text(args.markdown, text)
    if args.docs and complete:
        if args.picture:
            path = os.path.relpath(args.picture, args.docs.parent)
            text += f'\n![Accuracy against throughput]({path})\n'
        report.update_page(args.docs, name, text)
    elif args.docs:
        print(f'{args.docs} stays as it is.', file=sys.stderr)


def command_line() -> str:
    return shlex.join(['python', 'tools/benchmark.py', *sys.argv[1:]])


def exit_status(running: 'Benchmark', results: 'Sequence[Result]') -> int:
    """0, or 1 with a message where something is wrong or nothing was measured, 130 after an interruption."""
    from unireplknet_mm.measuring import report

    wrong = report.wrong_results(results)
    for line in wrong:
        print(f'WRONG: {line}', file=sys.stderr)
    if running.interrupted:
        print(INTERRUPTION, file=sys.stderr)
        return INTERRUPTED
    return 1 if wrong or not any(result.seconds for result in results) else 0


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    try:
        from unireplknet_mm.launch import exit_on_user_error

        status = exit_on_user_error(benchmark)(args)
    except KeyboardInterrupt:  # before there is anything to measure
        print(INTERRUPTION, file=sys.stderr)
        status = INTERRUPTED
    if status:
        sys.exit(status)


if __name__ == '__main__':
    main()
