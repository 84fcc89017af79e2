"""What the branches of a Dilated Reparam Block cost in training, over its large kernel alone, on the CPU.

    python -m unireplknet_mm.measuring.branches                   # about 10 seconds, a Markdown table
    python -m unireplknet_mm.measuring.branches --dtype bf16

A step is forward and backward of one block, K = 13, on three maps of UniRepLKNet-T to -S, in both layouts: as
the suite runs it, and with its branches one by one, each over one 13×13 convolution on the op with BatchNorm.
The three take turns, in processor time of one thread, which other programs hardly change; the least time of
each counts. Memory is what autograd keeps for backward, maps and vectors.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unireplknet_mm.measuring.variants import DTYPES, LAYOUTS
from unireplknet_mm.models.dilated_reparam_block import DilatedReparamBlock
from unireplknet_ops import DepthwiseConv2d
from unireplknet_ops.benchmark_report import table
from unireplknet_ops.dilatedreparam.functional import FORCE_VARIABLE
from unireplknet_ops.measure import in_turn, thread_count, timed_call
from unireplknet_ops.results import describe_machine

KERNEL_SIZE = 13
SHAPES = ((8, 160, 28, 28), (8, 320, 14, 14), (16, 640, 7, 7))


class Cost(NamedTuple):
    """Of a step: seconds, and bytes that are kept for backward."""

    seconds: float
    kept: int


def measure(
    shape: Sequence[int], layout: str, dtype: str = 'fp32', rounds: int = 12
) -> dict[str, Cost]:
    """Costs of the block as it runs, of its branches one by one, and of one convolution with BatchNorm.

    Args:
        shape: (N, C, H, W) of the map.
        layout, dtype: of `LAYOUTS` and `DTYPES`; in 16 bits under autocast.
        rounds: steps of each.
    """
    torch.manual_seed(0)
    channels = shape[1]
    block = DilatedReparamBlock(channels, KERNEL_SIZE)
    padding = KERNEL_SIZE // 2
    conv = DepthwiseConv2d(
        channels, kernel_size=KERNEL_SIZE, padding=padding, bias=False, implementation='op'
    )
    x, grad = (
        torch.randn(shape, dtype=DTYPES[dtype]).to(memory_format=LAYOUTS[layout]) for _ in range(2)
    )
    x.requires_grad_()
    modules = dict(
        block=(block, ''),
        branches=(block, 'native'),
        single=(nn.Sequential(conv, nn.BatchNorm2d(channels)), ''),
    )
    steps = {name: _step(module, way, x, grad, dtype) for name, (module, way) in modules.items()}
    kept = {name: _kept_by(step) for name, step in steps.items()}
    with thread_count(1):
        least = dict.fromkeys(steps, float('inf'))
        names = list(steps)
        for i, seconds in in_turn(
            names,
            [rounds] * len(names),
            lambda name: timed_call(steps[name], 'cpu', time.process_time)[1],
        ):
            least[names[i]] = min(least[names[i]], seconds)
    return {name: Cost(least[name], kept[name]) for name in names}


def _step(
    module: nn.Module, way: str, x: Tensor, grad: Tensor, dtype: str
) -> Callable[[], list[Tensor]]:
    """Forward and backward, with the operator of the block forced to `way`."""

    def step() -> list[Tensor]:
        before = os.environ.get(FORCE_VARIABLE, '')
        os.environ[FORCE_VARIABLE] = way
        try:
            with torch.autocast('cpu', DTYPES[dtype], enabled=dtype != 'fp32'):
                y = module(x)
            return list(torch.autograd.grad(y, [x, *module.parameters()], grad.to(y.dtype)))
        finally:
            os.environ[FORCE_VARIABLE] = before

    return step


def _kept_by(step: Callable[[], list[Tensor]]) -> int:
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step()
    return sum(kept.values())


def rows(dtype: str, rounds: int = 12) -> list[list[str]]:
    """Of the table: a shape and layout each, costs over those of the single convolution."""
    result = []
    for shape in SHAPES:
        for layout in LAYOUTS:
            costs = measure(shape, layout, dtype, rounds)
            single = costs['single']
            cells = [f'{shape}, {layout}']
            for name in ('branches', 'block'):
                cells += [
                    f'{costs[name].seconds / single.seconds:.2f}',
                    f'{costs[name].kept / single.kept:.2f}',
                ]
            result.append(cells)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--dtype', choices=['fp32', 'bf16'], default='fp32')
    parser.add_argument('--rounds', type=int, default=12, metavar='N', help='steps of each (12)')
    args = parser.parse_args()
    columns = [
        *('K = 13', 'one by one, time', 'one by one, kept'),
        *('block, time', 'block, kept'),
    ]
    text = table(columns, rows(args.dtype, args.rounds))
    machine = ', '.join(f'{key} {value}' for key, value in describe_machine('cpu').items())
    print(f'{args.dtype}, over one convolution and BatchNorm; {machine}\n\n{text}')


if __name__ == '__main__':
    main()
