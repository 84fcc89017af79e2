"""What the kernel computes, step by step: to read first, and for the tests to compare.

The feed-forward part of a UniRepLKNet block (arXiv 2410.08049, Fig. 3): with maps as rows of channels,

    h = GELU((s x) W1^T + b1),   GRN(h) = (gamma g / (mean of g over channels + 1e-6) + 1) h + beta,
    y = t (GRN(h) W2^T) + b2 + residual

where g is the norm of each channel of h over the positions of an image. s is the Squeeze-and-Excitation
factor of the input, t and b2 are what follows the second linear layer. The arguments are those of the
operator of the same name; compute in float32 or float64.
"""

import torch.nn.functional as F
from torch import Tensor


def feed_forward(
    x: Tensor,
    input_scale: Tensor | None,
    weight1: Tensor,
    bias1: Tensor | None,
    gamma: Tensor,
    beta: Tensor | None,
    weight2: Tensor,
    output_scale: Tensor | None,
    bias2: Tensor | None,
    residual: Tensor | None,
) -> Tensor:
    """y: (N, C, H, W) from x (N, C, H, W), s (N, C), W1 (hidden, C), W2 (C, hidden) and vectors."""
    rows = x.permute(0, 2, 3, 1)  # [N, H, W, C]
    if input_scale is not None:
        rows = rows * input_scale[:, None, None, :]
    hidden = F.gelu(F.linear(rows, weight1, bias1))
    norm = hidden.square().sum((1, 2), keepdim=True).sqrt()  # [N, 1, 1, hidden]
    hidden = (gamma * norm / (norm.mean(-1, keepdim=True) + 1e-6) + 1) * hidden
    if beta is not None:
        hidden = hidden + beta
    output = F.linear(hidden, weight2)
    if output_scale is not None:
        output = output * output_scale
    if bias2 is not None:
        output = output + bias2
    output = output.permute(0, 3, 1, 2)  # [N, C, H, W]
    return output if residual is None else output + residual
