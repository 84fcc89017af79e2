"""Time the CUDA kernels' variants, which nothing chooses yet, beside what runs by default.

    PYTHONPATH=ops python ops/tests/time_variants.py

For each shape, dtype, layout and pass one line: microseconds of the default and of each setting of
UNIREPLKNET_CUDA_VARIANTS, timed in turn (`measure` says how). Each result is compared with float64 first, and
the exit status is 1 if one is wrong. A variant that does not suit a pass times the default again, which shows
how far two times of the same code lie apart. This is the ground for choosing one by default, in
`choose_forward_plan` and `choose_backward_weight_plan` (tensor_core_plan.cuh), `with_backward_weight_kernel`
(direct_backward_weight.cuh) and `convolve` (depthwise_conv2d.cu).
"""

import os
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from unireplknet_ops import library
from unireplknet_ops.measure import (
    Shape,
    Tensors,
    Timer,
    WrongResultError,
    make_pool,
)
from unireplknet_ops.tuning_tables import PASSES

VARIABLE = 'UNIREPLKNET_CUDA_VARIANTS'
SETTINGS = {
    'contiguous': ('', 'seven_rows', 'prefetch', 'seven_rows,prefetch'),
    'channels_last': ('', 'channels_last'),
}
# Kernel, map, batch and channels: Table 1, the backbone's stage 3, a detection map.
SIZES = ((13, 32, 32, 64, 384), (13, 64, 64, 64, 384), (13, 14, 14, 64, 320), (13, 50, 84, 2, 384))


def call_of(tensors: Tensors, name: str, setting: str) -> Callable[[], Tensor]:
    def call() -> Tensor:
        os.environ[VARIABLE] = setting
        return tensors.op(name)

    return call


def time_settings(timer: Timer, tensors: Tensors, layout: str, name: str) -> bool:
    """Print the line of one pass.

    Returns:
        Whether all results were right.
    """
    labels = [setting or 'default' for setting in SETTINGS[layout]]
    calls = [call_of(tensors, name, setting) for setting in SETTINGS[layout]]
    firsts, wrong = [], []
    for call, label in zip(calls, labels, strict=True):
        result, seconds = timer.first_call(call)
        firsts.append(seconds)
        try:
            tensors.check(name, result, None)
        except WrongResultError as error:
            wrong.append(f'; {label} is WRONG: {error}')
    times = timer.time(calls, firsts)
    columns = (f'{label} {1e6 * time:.1f}' for label, time in zip(labels, times, strict=True))
    line = f'{name} of {tensors.shape}, {layout}: {", ".join(columns)} us{"".join(wrong)}'
    print(line, flush=True)
    return not wrong


def main() -> int:
    missing = library.missing('cuda')
    if missing is not None:
        print(f'Nothing to time: the op cannot run on cuda: {missing}', file=sys.stderr)
        return 1
    timer = Timer('cuda', budget=0.01)
    right = True
    for dtype in (torch.bfloat16, torch.float32):
        shapes = [Shape(kernel, 1, *sizes, dtype) for kernel, *sizes in SIZES]
        pool = make_pool(shapes, dtype, 'cuda')
        for shape in shapes:
            for layout in SETTINGS:
                tensors = Tensors(shape, pool, layout == 'channels_last')
                for name in PASSES:
                    right &= time_settings(timer, tensors, layout, name)
    os.environ.pop(VARIABLE)
    return 0 if right else 1


if __name__ == '__main__':
    with torch.no_grad():
        sys.exit(main())
