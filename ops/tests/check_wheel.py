"""Load the op's library from DIRECTORY and compare it with F.conv2d; needs nothing but torch.

    python ops/tests/check_wheel.py DIRECTORY

For interpreters and torch releases that the rest of the suite is not installed for. Prints one line
and exits 1 on a difference.
"""

import sys
from pathlib import Path

import torch
from torch.nn.functional import conv2d


def main(directory: Path) -> int:
    libraries = [directory / 'libunireplknet_ops.so']
    if torch.version.cuda and (directory / 'libunireplknet_ops_cuda.so').exists():
        libraries.append(directory / 'libunireplknet_ops_cuda.so')
    for library in libraries:
        torch.ops.load_library(str(library))
    ops = torch.ops.unireplknet
    torch.manual_seed(0)
    x, grad_output = torch.randn(2, 2, 5, 17, 14, dtype=torch.float64).float()
    weight, bias = torch.randn(5, 1, 7, 3), torch.randn(5)

    out = ops.depthwise_conv2d(x, weight, bias, 2)
    grad_x = ops.depthwise_conv2d_backward_input(grad_output, weight, 2)
    grad_weight = ops.depthwise_conv2d_backward_weight(grad_output, x, [7, 3], 2)
    x, weight = x.double().requires_grad_(), weight.double().requires_grad_()
    expected = conv2d(x, weight, bias.double(), padding=(6, 2), dilation=2, groups=5)
    expected.backward(grad_output.double())
    pairs = (out, expected), (grad_x, x.grad), (grad_weight, weight.grad)
    error = max((result - truth).abs().max().item() for result, truth in pairs)

    try:
        ops.depthwise_conv2d(out, torch.ones(5, 1, 4, 4))
        refused = False
    except RuntimeError as problem:
        refused = 'even' in str(problem)
    passed = error < 1e-4 and refused
    print(
        f'{"ok" if passed else "WRONG"}: Python {sys.version.split()[0]}, torch {torch.__version__}, '
        f'{ops.cpu_isa()}: {" and ".join(path.name for path in libraries)} loaded, '
        f'largest error {error:.1e}, even kernel size {"refused" if refused else "accepted"}'
    )
    return int(not passed)


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1])))
