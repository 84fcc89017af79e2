"""The small set of convolutions that runs under compute-sanitizer, which slows everything down manyfold.

    PYTHONPATH=ops:ops/tests compute-sanitizer --tool memcheck python ops/tests/small_set.py cuda [few]

Every kernel family runs in each dtype that it takes, forward and both gradients, and results are compared as
in the tests; on a GPU also with much shared memory, with several images or units of work in a block, with
sums divided among blocks, and with tensors that miss the alignment of their allocation. Run it with
PYTORCH_NO_CUDA_MEMORY_CACHING=1: each tensor is then an allocation of its own, and an access beside it is
seen. `few` takes one case of each kernel family, for the tools that are slowest.
"""

import os
import sys
import time
from collections.abc import Iterator

import torch
from op_cases import SHIFTED, Case, check, dtypes_of, reason_to_skip

from unireplknet_ops import depthwise_conv2d

CASES = (
    Case(2, 5, 9, 11, 3, 3),
    Case(1, 17, 7, 7, 5, 5),
    Case(2, 3, 13, 19, 7, 7),
    Case(1, 2, 17, 15, 9, 9),
    Case(2, 3, 14, 14, 13, 13),
    Case(1, 2, 23, 29, 17, 17),
    Case(1, 2, 14, 37, 31, 31),
    Case(1, 2, 19, 16, 51, 5),
    Case(1, 3, 12, 18, 7, 7, 2),
    Case(2, 2, 14, 15, 3, 3, 5),
)
ROWS_OF_VECTORS = Case(8, 24, 56, 56, 7, 7)
# What the tensor-core kernels divide in ways that small maps do not show.
GPU_CASES = (
    ROWS_OF_VECTORS,
    Case(64, 8, 28, 28, 13, 13),  # a warp with 32 columns of 8 images; 16 shares of a gradient
    Case(257, 1030, 1, 2, 1, 3),  # several units to a block, in either family
    Case(64, 64, 100, 7, 1, 3),  # more shared memory than a kernel gets without asking
)
FEW = (Case(2, 3, 14, 14, 13, 13), Case(1, 3, 12, 18, 7, 7, 2))
KERNELS_VARIABLE = 'UNIREPLKNET_CUDA_KERNEL'


def convolve(x, weight, bias, dilation):
    return depthwise_conv2d(x, weight, bias, dilation=dilation, implementation='op')


def runs_on(device: str) -> Iterator[tuple[str, Case, torch.dtype, str]]:
    """Kernels to force ('' for those that the shape gets), case, dtype and layout of each convolution."""
    cases = CASES if device == 'cpu' else CASES + GPU_CASES
    for case in cases:
        for dtype in dtypes_of(device):
            for layout in ('contiguous', 'channels_last'):
                yield '', case, dtype, layout
    if device == 'cpu':
        return
    for dtype in dtypes_of(device):
        for layout in SHIFTED:
            yield '', ROWS_OF_VECTORS, dtype, layout
    # What float32 and dilated filters have run on already.
    for dtype in (torch.float16, torch.bfloat16):
        for case in cases:
            if case.dilation == 1:
                yield 'direct', case, dtype, 'contiguous'
        for layout in SHIFTED:
            yield 'direct', ROWS_OF_VECTORS, dtype, layout


def few_runs_on(device: str) -> Iterator[tuple[str, Case, torch.dtype, str]]:
    for dtype in (torch.float32, torch.bfloat16):
        for case in FEW:
            yield '', case, dtype, 'contiguous'
    if device == 'cuda':
        yield 'direct', FEW[0], torch.bfloat16, 'contiguous'


def main(device: str, few: bool = False) -> None:
    reason = reason_to_skip(device)
    if reason is not None:
        sys.exit(f'The small set cannot run: {reason}')
    start, count = time.monotonic(), 0
    for kernels, case, dtype, layout in (few_runs_on if few else runs_on)(device):
        os.environ[KERNELS_VARIABLE] = kernels
        check(convolve, case, dtype, device, layout)
        count += 1
    print(f'{count} convolutions on {device}, {time.monotonic() - start:.0f} s')


if __name__ == '__main__':
    main(sys.argv[1] if len(sys.argv) > 1 else 'cuda', few=sys.argv[2:] == ['few'])
