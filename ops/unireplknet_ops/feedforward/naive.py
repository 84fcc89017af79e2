"""What the kernel computes, step by step: to read first, and for the tests to compare.

The feed-forward part of a UniRepLKNet block (arXiv 2410.08049, Fig. 3): with maps as rows of channels,

    h = GELU((s x) W1^T + b1),   GRN(h) = (gamma g / (mean of g over channels + 1e-6) + 1) h + beta,
    y = t (GRN(h) W2^T) + b2 + residual

where g is the norm of each channel of h over the positions of an image. s is the Squeeze-and-Excitation
factor of the input; t and b2 are what follows the second linear layer. With m the means of the channels,

    s = sigmoid(V2 relu(V1 m + c1) + c2)

which is an operator of its own, `squeeze_excitation`. The arguments are those of the operators of the same
names; compute in float32 or float64.

In training only GELU and GRN are one operator, `gelu_grn`, whose input is the product s x W1^T.
"""

import math

import torch
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
    hidden, _ = gelu_grn(F.linear(rows, weight1), bias1, gamma, beta)
    output = F.linear(hidden, weight2)
    if output_scale is not None:
        output = output * output_scale
    if bias2 is not None:
        output = output + bias2
    output = output.permute(0, 3, 1, 2)  # [N, C, H, W]
    return output if residual is None else output + residual


def squeeze_excitation(
    x: Tensor, weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None
) -> Tensor:
    """s: (N, C) from x (N, C, H, W), V1 (squeezed, C), V2 (C, squeezed) and vectors."""
    squeezed = F.linear(x.mean((2, 3)), weight1, bias1).relu()
    return F.linear(squeezed, weight2, bias2).sigmoid()


def gelu_grn(
    x: Tensor, bias: Tensor | None, gamma: Tensor, beta: Tensor | None
) -> tuple[Tensor, Tensor]:
    """GRN(GELU(x + bias)) of x (N, ..., C) and vectors (C,); and its norm, (N, C)."""
    hidden = F.gelu(x if bias is None else x + bias)
    positions = tuple(range(1, x.dim() - 1))
    norm = hidden.square().sum(positions, keepdim=True).sqrt()  # [N, 1, 1, C]
    output = (gamma * norm / (norm.mean(-1, keepdim=True) + 1e-6) + 1) * hidden
    return output if beta is None else output + beta, norm.flatten(1)


def gelu_grn_backward(
    grad_output: Tensor, x: Tensor, bias: Tensor | None, gamma: Tensor, norm: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x (N, ..., C), bias, gamma and beta (C,)."""
    positions = tuple(range(1, x.dim() - 1))
    biased = x if bias is None else x + bias
    hidden = F.gelu(biased)
    norm = norm.reshape(len(x), *(1 for _ in positions), x.shape[-1])  # [N, 1, 1, C]
    mean = norm.mean(-1, keepdim=True) + 1e-6
    product = (grad_output * hidden).sum(positions, keepdim=True)
    grad_response = gamma * product
    grad_norm = grad_response / mean - (grad_response * norm).mean(-1, keepdim=True) / mean**2
    of_hidden = torch.where(norm > 0, grad_norm / norm, 0)  # GRN does not see a channel of zeros
    grad_hidden = grad_output * (1 + gamma * norm / mean) + of_hidden * hidden
    density = torch.exp(-biased.square() / 2) / math.sqrt(2 * math.pi)
    distribution = (1 + torch.erf(biased / math.sqrt(2))) / 2
    grad_x = grad_hidden * (distribution + biased * density)
    over = tuple(range(x.dim() - 1))
    return grad_x, grad_x.sum(over), (norm / mean * product).sum(over), grad_output.sum(over)
