"""What the kernel computes, step by step: to read first, and for the tests to compare.

The Dilated Reparam Block in training (arXiv 2410.08049, §3.2.2 and Fig. 6): parallel depthwise convolutions
of one map, the large kernel first, each with a BatchNorm that takes the statistics of the batch,

    z_b = w_b * x,   y = sum over b of scale_b (z_b - mean_b) / sqrt(var_b + eps_b) + shift_b

where mean_b and var_b are those of z_b over images and positions, var_b the biased one. The arguments are
those of the operator of the same name; compute in float32 or float64, and let autograd differentiate.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def dilated_reparam(
    x: Tensor,
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    scales: Sequence[Tensor],
    shifts: Sequence[Tensor],
    eps: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """y (N, C, H, W), mean (B, C) and var (B, C) from x (N, C, H, W) and B weights (C, 1, k, k)."""
    y, means, variances = 0, [], []
    for weight, dilation, scale, shift, e in zip(
        weights, dilations, scales, shifts, eps, strict=True
    ):
        padding = dilation * (weight.shape[-1] // 2)
        z = F.conv2d(x, weight, padding=padding, dilation=dilation, groups=x.shape[1])
        var, mean = torch.var_mean(z, (0, 2, 3), correction=0)  # [C]
        factor = scale / torch.sqrt(var + e)
        y = y + (z - mean[:, None, None]) * factor[:, None, None] + shift[:, None, None]
        means.append(mean)
        variances.append(var)
    return y, torch.stack(means), torch.stack(variances)
