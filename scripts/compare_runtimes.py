"""How fast the suite's networks are in each runtime that tools/export.py writes files for, on this CPU.

    python scripts/compare_runtimes.py                                   # the table of docs/deployment.md
    python scripts/compare_runtimes.py unireplknet_t timm:convnext_tiny --runtimes eager OpenVINO
    python scripts/compare_runtimes.py --prepare                         # only writes the files
    python scripts/compare_runtimes.py --clock cpu --threads 1           # on a busy machine

MODEL is a name that tools/benchmark.py takes, or a config, with its pre- and postprocessing, which in bf16
runs under autocast. Files are written once, to --files, with an open batch; then, for each batch size,
everything takes turns in one process: a call of each, round by round. The table has medians. --clock cpu
takes the processor's time instead, which another program hardly changes, and means something with one thread
only.
"""

import argparse
import copy
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unireplknet_mm import launch
from unireplknet_mm.errors import UserError
from unireplknet_mm.export import FORMATS, Deployable, deployable
from unireplknet_mm.export.detection import DetectorFile
from unireplknet_mm.export.formats import Settings
from unireplknet_mm.export.rewriting import write_pointwise
from unireplknet_mm.measuring.benchmark import percentile
from unireplknet_mm.measuring.catalogue import find_config_model, find_model
from unireplknet_mm.measuring.machine import describe as describe_machine
from unireplknet_mm.measuring.report import update_page
from unireplknet_mm.measuring.variants import fold, forced
from unireplknet_ops.benchmark_report import table
from unireplknet_ops.measure import in_turn, thread_count, timed_call

MODELS = (
    'unireplknet_a',
    'unireplknet_t',
    'unireplknet_s',
    'timm:convnext_tiny',
    'timm:convnext_small',
)
# What is measured: a name, the format of its file or None, and its precision.
RUNTIMES = {
    'eager': (None, 'fp32'),
    'eager, PyTorch alone': (None, 'fp32'),
    'eager bf16': (None, 'bf16'),
    'compiled': (None, 'fp32'),
    'AOTInductor': ('aoti', 'fp32'),
    'ONNX Runtime': ('onnx', 'fp32'),
    'OpenVINO': ('openvino', 'fp32'),
    'OpenVINO bf16': ('openvino', 'bf16'),
    'OpenVINO int8': ('openvino', 'int8'),
}
CALIBRATION_IMAGES = 8  # of noise: only the speed counts here


class Network(Deployable):
    """A classifier as it is: normalised images -> `logits`."""

    task = 'classification'
    output_names = ('logits',)
    dynamic = ('batch',)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.model(images),)

    def example(self, batch_size: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(batch_size, *shape, generator=torch.Generator().manual_seed(0))

    def describe(self) -> dict[str, Any]:
        return dict(input={}, outputs=dict(logits='(N, classes)'))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('models', nargs='*', metavar='MODEL', default=MODELS)
    add('--runtimes', nargs='+', choices=RUNTIMES, default=list(RUNTIMES))
    add('--pointwise', choices=['linear', 'matmul', 'convolution'], help="instead of the format's")
    add('--batch-size', nargs='+', type=int, default=[1, 8])
    add('--size', type=int, nargs=2, default=(224, 224), metavar=('HEIGHT', 'WIDTH'))
    add('--threads', type=int, default=torch.get_num_threads())
    add('--rounds', type=int, default=15)
    add('--warm-up', type=int, default=3, metavar='CALLS')
    add('--clock', choices=['wall', 'cpu'], default='wall')
    add('--files', type=Path, default=Path('work_dirs/runtimes'))
    add('--prepare', action='store_true', help='write the files, and measure nothing')
    add('--json', type=Path, metavar='FILE', help='every time of every call')
    add(
        '--docs',
        type=Path,
        metavar='FILE',
        help='put the table into a page, in place of an old one',
    )
    add('--section', default='runtimes', help='its name there')
    return parser.parse_args()


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def build(name: str) -> Deployable:
    """A network by name, or what a config describes, folded, with random weights that matter."""
    is_config = Path(name).suffix == '.py'
    find = find_config_model(launch.load_config(name)) if is_config else find_model(name)
    model = find().model
    fold(model.eval())
    return deployable(model) if is_config else Network(model)


def pointwise_form(network: nn.Module, form: str, precision: str) -> None:
    """As `tools/export.py` does; other networks have the products of matrices only."""
    write_pointwise(network, form, by_rows=precision != 'int8')


def file_of(args: argparse.Namespace, name: str, format: str, precision: str) -> Path:
    plain = Path(name).stem if name.endswith('.py') else name.replace(':', '_')
    form = f'-{args.pointwise}' if args.pointwise else ''
    size = 'x'.join(map(str, args.size))
    return args.files / f'{plain}-{size}-{precision}{form}{FORMATS[format].suffix}'


def write_files(args: argparse.Namespace, name: str) -> None:
    network = None
    for runtime in args.runtimes:
        format_name, precision = RUNTIMES[runtime]
        if format_name is None:
            continue
        path = file_of(args, name, format_name, precision)
        if path.exists():
            continue
        network = network or build(name)
        format = FORMATS[format_name]
        copied = copy.deepcopy(network)
        pointwise_form(copied, args.pointwise or format.pointwise, precision)
        dynamic = ('batch',) if 'batch' in network.dynamic else ()
        example = network.example(2 if dynamic else 1, (3, *args.size))
        calibration = [network.example(1, (3, *args.size))] * CALIBRATION_IMAGES
        path.parent.mkdir(parents=True, exist_ok=True)
        start = time.process_time()
        with tempfile.TemporaryDirectory(
            dir=path.parent
        ) as folder:  # a file is whole, or not there
            new = Path(folder) / path.name
            format.write(copied, example, new, Settings(precision, dynamic, {}, calibration))
            for part in format.parts(new):
                os.replace(part, path.with_name(part.name))
        report(f'wrote {path} ({time.process_time() - start:.0f} s of the processor)')
        gc.collect()


def runner(
    args: argparse.Namespace, name: str, runtime: str, network: Callable[[], Deployable]
) -> Callable[[Tensor], Any]:
    """What is timed: a function of a batch."""
    format_name, precision = RUNTIMES[runtime]
    if format_name is not None:
        loaded = FORMATS[format_name].load(
            file_of(args, name, format_name, precision), args.threads
        )
        return lambda batch: loaded(batch.numpy())
    model = network()
    is_network = type(model) is Network
    lowered = is_network and precision == 'bf16'
    if lowered:
        model = copy.deepcopy(model).to(torch.bfloat16)
    if runtime == 'compiled':
        model = compiled(model)
    autocast = torch.autocast('cpu', torch.bfloat16, enabled=precision == 'bf16' and not lowered)
    implementation = 'plain' if runtime == 'eager, PyTorch alone' else 'auto'

    def run(batch: Tensor) -> Any:
        with torch.inference_mode(), forced(implementation), autocast:
            return model(batch.to(torch.bfloat16) if lowered else batch)

    return run


def compiled(function: Deployable) -> Deployable:
    """By `torch.compile`, what differs between models: one `forward` would be compiled again for each.

    Of detectors backbone, neck and the layers of each head, since torch 2.11 fails on what is between them.
    """
    function = copy.deepcopy(function)
    if type(function) is Network:
        function.model.compile()
    elif isinstance(function, DetectorFile):
        for name, module in function.model.named_modules():
            is_head = type(module).__name__.endswith('Head') and name != 'roi_head'
            if is_head or name in ('backbone', 'neck'):
                module.compile()
    else:
        function.compile()
    return function


def measure(args: argparse.Namespace, batch_size: int) -> dict[tuple[str, str], list[float]]:
    clock = time.process_time if args.clock == 'cpu' else time.perf_counter
    labels, calls = [], []
    for name in args.models:
        built: list[Deployable] = []

        def network(name: str = name, built: list[Deployable] = built) -> Deployable:
            if not built:
                built.append(build(name))
            return built[0]

        example = network().example(batch_size, (3, *args.size))
        for runtime in args.runtimes:
            try:
                run = runner(args, name, runtime, network)
                for _ in range(args.warm_up):
                    run(example)
            except (UserError, RuntimeError) as error:
                report(f'{name}, {runtime}: left out: {str(error).splitlines()[0]}')
                continue
            labels.append((name, runtime))
            calls.append(lambda run=run, example=example: run(example))
            report(f'batch {batch_size}: {name}, {runtime} is ready')
    seconds: dict[tuple[str, str], list[float]] = {label: [] for label in labels}
    for index, taken in in_turn(
        calls, [args.rounds] * len(calls), lambda call: timed_call(call, 'cpu', clock)[1]
    ):
        seconds[labels[index]].append(taken)
    return seconds


def as_table(args: argparse.Namespace, batch_size: int, seconds: dict) -> str:
    """A row a runtime, a column a model: the median, and how it compares with eager."""
    rows = []
    for runtime in args.runtimes:
        row = [runtime]
        for name in args.models:
            taken = seconds.get((name, runtime))
            eager = seconds.get((name, args.runtimes[0]))
            if not taken:
                row.append('-')
                continue
            median = percentile(taken, 50)
            value = f'{1e3 * median:.1f} ms' if batch_size == 1 else f'{batch_size / median:.3g}/s'
            row.append(f'{value} ({percentile(eager, 50) / median:.2f}x)' if eager else value)
        rows.append(row)
    return table(['', *(Path(name).stem for name in args.models)], rows)


def main() -> None:
    args = parse_args()
    for name in args.models:
        write_files(args, name)
    if args.prepare:
        return
    machine = ', '.join(f'{key} {value}' for key, value in describe_machine('cpu').items())
    command = ' '.join(['python', *sys.argv])
    unit = 'processor time' if args.clock == 'cpu' else 'wall time'
    parts, times = [], {}
    with thread_count(args.threads):
        for batch_size in args.batch_size:
            seconds = measure(args, batch_size)
            what = 'latency' if batch_size == 1 else 'images a second'
            parts.append(
                f'Batch {batch_size}, {args.size[0]}×{args.size[1]}, {args.threads} thread(s), {what}, '
                f'{unit}, in brackets times the images of {args.runtimes[0]}:\n\n'
                + as_table(args, batch_size, seconds)
            )
            times[batch_size] = {' / '.join(key): value for key, value in seconds.items()}
            if args.json:
                measured = dict(machine=machine, command=command, seconds=times)
                args.json.write_text(json.dumps(measured))
            gc.collect()
    text = '\n\n'.join([*parts, f'{machine}.\n\n`{command}`'])
    print(text)
    if args.docs:
        update_page(args.docs, args.section, text)


if __name__ == '__main__':
    launch.exit_on_user_error(main)()
