"""The small set of convolutions that runs under compute-sanitizer, which slows everything down manyfold.

    PYTHONPATH=.:tests compute-sanitizer --tool memcheck python tests/ops/small_set.py cuda

Every kernel family runs in each dtype and layout, forward and both gradients, and results are compared as in
the tests. Run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1: each tensor is then an allocation of its own, and an
access beside it is seen.
"""

import sys
import time

from op_cases import Case, check, dtypes_of, reason_to_skip

from unireplknet_mm.ops import depthwise_conv2d

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


def convolve(x, weight, bias, dilation):
    return depthwise_conv2d(x, weight, bias, dilation=dilation, implementation='op')


def main(device: str) -> None:
    reason = reason_to_skip(device)
    if reason is not None:
        sys.exit(f'The small set cannot run: {reason}')
    start, count = time.monotonic(), 0
    for case in CASES:
        for dtype in dtypes_of(device):
            for layout in ('contiguous', 'channels_last'):
                check(convolve, case, dtype, device, layout)
                count += 1
    print(f'{count} convolutions on {device}, {time.monotonic() - start:.0f} s')


if __name__ == '__main__':
    main(sys.argv[1] if len(sys.argv) > 1 else 'cuda')
