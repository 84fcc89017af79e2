"""Training steps of whole models on the CPU: all native, chosen by the dispatch, all on the op.

    python -m unireplknet_mm.measuring.training_steps --output FILE    # about 5 minutes on 2 cores

One step is forward, loss, backward and the optimizer, on random data from the same seed. The three ways take
turns in one process, by UNIREPLKNET_DWCONV, and the least time of each counts.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import unireplknet_mm.models  # noqa: F401  registers the backbone
from unireplknet_ops import library
from unireplknet_ops.benchmark_report import table
from unireplknet_ops.dispatch import FORCE_VARIABLE
from unireplknet_ops.measure import in_turn, timed_call
from unireplknet_ops.results import describe_machine, write_json

WAYS = {'native': 'native', 'auto': '', 'op': 'op'}  # what UNIREPLKNET_DWCONV is set to
THREADS = 2
DETECTOR = Path('configs/det/cascade_unireplknet_t_3x.py')


class Result(NamedTuple):
    """Seconds of a step by way of `WAYS`."""

    model: str
    layout: str
    threads: int
    seconds: dict[str, float]

    def __str__(self) -> str:
        times = ', '.join(f'{way} {seconds:.2f} s' for way, seconds in self.seconds.items())
        return f'{self.model}, {self.layout}, {self.threads} threads: {times}'


def run(image_size: int = 224, detector_size: tuple[int, int] = (480, 640)) -> Iterator[Result]:
    """Time every model and layout, one after the other.

    Args:
        image_size: height and width of the classifier's images.
        detector_size: height and width of the detector's image.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        for layout in ('contiguous', 'channels_last'):
            name = f'UniRepLKNet-T, batch 4, {image_size}²'
            seconds = time_step(classifier_step(image_size, layout), rounds=4)
            yield Result(name, layout, THREADS, seconds)
        config = Path(__file__).resolve().parents[2] / DETECTOR
        if config.exists():  # it is not in an installed package
            height, width = detector_size
            name = f'Cascade Mask R-CNN T, batch 1, {width}×{height}'
            whole, backbone = detector_steps(config, detector_size)
            seconds = time_step(backbone, rounds=3)
            yield Result(f'{name}: backbone, forward and backward', 'contiguous', THREADS, seconds)
            yield Result(name, 'contiguous', THREADS, time_step(whole, rounds=2))
    finally:
        torch.set_num_threads(before)


def classifier_step(image_size: int, layout: str) -> Callable[[], None]:
    """A step of the backbone with a linear classifier on a batch of 4."""
    torch.manual_seed(0)
    memory_format = getattr(torch, f'{layout}_format', None) or getattr(torch, layout)
    backbone = MODELS.build(dict(type='UniRepLKNet', arch='t', out_indices=(3,))).train()
    head = nn.Linear(640, 1000)
    model = nn.ModuleList([backbone, head]).to(memory_format=memory_format)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    images = torch.randn(4, 3, image_size, image_size).to(memory_format=memory_format)
    labels = torch.arange(4)

    def step() -> None:
        (features,) = backbone(images)
        loss = F.cross_entropy(head(features.mean((2, 3))), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def detector_steps(config: Path, size: tuple[int, int]) -> tuple[Callable[[], None], ...]:
    """A step of the config's detector, random weights, on one random image with ten objects; and forward
    and backward of its backbone alone."""
    from mmdet.testing import demo_mm_inputs
    from mmdet.utils import register_all_modules

    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    register_all_modules(init_default_scope=False)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    batch = demo_mm_inputs(1, image_shapes=[(3, *size)], num_items=[10], with_mask=True)
    batch = model.data_preprocessor(batch, training=True)

    def step() -> None:
        losses, _ = model.parse_losses(model(**batch, mode='loss'))
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()

    def backbone_step() -> None:
        optimizer.zero_grad()
        sum(features.mean() for features in model.backbone(batch['inputs'])).backward()

    return step, backbone_step


def to_markdown(results: Iterable[Result]) -> str:
    rows = []
    for result in results:
        seconds = result.seconds
        ratios = [f'{seconds["native"] / seconds[way]:.2f}x' for way in ('auto', 'op')]
        times = [f'{seconds[way]:.2f} s' for way in WAYS]
        rows.append([result.model, result.layout, *times, *ratios])
    columns = ['training step', 'layout', *WAYS, 'native / auto', 'native / op']
    return table(columns, rows)


def time_step(step: Callable[[], None], rounds: int) -> dict[str, float]:
    """The least of `rounds` seconds of a step, by way of `WAYS`; the ways take turns."""
    samples: dict[str, list[float]] = {way: [] for way in WAYS}
    ways = list(WAYS)

    def seconds_of(way: str) -> float:
        os.environ[FORCE_VARIABLE] = WAYS[way]
        torch.manual_seed(len(samples[way]))
        return timed_call(step, 'cpu')[1]

    before = os.environ.get(FORCE_VARIABLE)
    try:
        for i, seconds in in_turn(ways, [rounds] * len(ways), seconds_of):
            samples[ways[i]].append(seconds)
    finally:
        if before is None:
            del os.environ[FORCE_VARIABLE]
        else:
            os.environ[FORCE_VARIABLE] = before
    return {way: min(times) for way, times in samples.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog='python -m unireplknet_mm.measuring.training_steps',
        description=__doc__.splitlines()[0],
    )
    parser.add_argument('--output', type=Path, help='write every time as JSON')
    args = parser.parse_args(arguments)
    if (missing := library.missing('cpu')) is not None:
        print(f'Nothing to measure: the op cannot run on cpu: {missing}', file=sys.stderr)
        return 1
    machine = describe_machine('cpu')
    print(', '.join(f'{key} {value}' for key, value in machine.items()), flush=True)
    results = []
    for result in run():
        print(result, flush=True)
        results.append(result)
    print(to_markdown(results))
    write_json(args.output, dict(machine=machine, models=[r._asdict() for r in results]))
    return 0


if __name__ == '__main__':
    sys.exit(main())
