"""What several test files share."""

import torch
from torch import nn

SMALL_ARCH = dict(
    depths=(1, 1, 3, 1), channels=(8, 16, 24, 32), kernel_sizes=(3, 13, (13, 5, 7), 19)
)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a value far from its neutral one, in place.

    A wrong fusion nearly passes on fresh BatchNorms (mean 0, variance 1), zero GRN and tiny layer scale.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = 0.3 * torch.randn(tensor.shape, generator=generator)
        if name.endswith('running_var'):
            noise = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif tensor.dim() == 1 and name.endswith(('weight', 'gamma')):
            noise = 1 + noise
        elif tensor.dim() > 1 and name.endswith('weight'):
            noise = noise / (0.3 * tensor[0].numel() ** 0.5)
        tensor.copy_(noise)
    return module


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    actual, expected = actual.detach().double(), expected.detach().double()
    return ((actual - expected).norm() / expected.norm()).item()
