"""Structural re-parameterization as pure functions on tensors.

Paper: §3.2.2, Eq. 1 and 6, appendix A (arXiv 2410.08049). A Dilated Reparam Block, the BatchNorm behind
it, the bias of GRN, the BatchNorm behind the second linear layer and the layer scale all fold into one
depthwise convolution and two linear layers. Nothing here knows about modules: tensors in, new tensors
out, in the caller's device and dtype. 16-bit inputs are folded in float32 and rounded once at the end.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class BatchNormTensors(NamedTuple):
    """What a BatchNorm does in evaluation: `(x - mean) / sqrt(var + eps) * weight + bias`, each (C,)."""

    mean: Tensor
    var: Tensor
    weight: Tensor
    bias: Tensor
    eps: float


class Branch(NamedTuple):
    """A depthwise convolution with its BatchNorm: weight (C, 1, k, k), bias (C,), 'same' padding."""

    weight: Tensor
    norm: BatchNormTensors
    dilation: int
    bias: Tensor | None = None


def folding_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype that folding computes in: float32 for 16-bit tensors, else the tensor's own."""
    return torch.promote_types(dtype, torch.float32)


def fold_batch_norm(
    weight: Tensor, bias: Tensor | None, norm: BatchNormTensors
) -> tuple[Tensor, Tensor]:
    """Fold a BatchNorm into the convolution or linear layer before it.

    Args:
        weight: (C_out, ...), the layer's weight.
        bias: (C_out,) or None, the layer's bias.
        norm: the BatchNorm over C_out channels.

    Returns:
        The weight and bias of the one layer that does both.
    """
    scale = norm.weight / torch.sqrt(norm.var + norm.eps)
    shift = -norm.mean if bias is None else bias - norm.mean
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), norm.bias + shift * scale


def dilated_to_dense(weight: Tensor, dilation: int) -> Tensor:
    """Insert zeros between the taps of a dilated kernel (Eq. 6; the transposed convolution with 1).

    Args:
        weight: (C_out, C_in / groups, kh, kw).
        dilation: the distance r between taps.

    Returns:
        (C_out, C_in / groups, (kh-1)r+1, (kw-1)r+1), for a convolution of dilation 1.
    """
    kh, kw = weight.shape[-2:]
    dense = weight.new_zeros((*weight.shape[:2], (kh - 1) * dilation + 1, (kw - 1) * dilation + 1))
    dense[..., ::dilation, ::dilation] = weight
    return dense


def embed_kernel(weight: Tensor, kernel_size: int) -> Tensor:
    """Pad a kernel with zeros, centred, to `kernel_size` in both axes.

    Raises:
        ValueError: the kernel is larger than `kernel_size`, or of another parity.
    """
    margins = [kernel_size - size for size in weight.shape[-2:]]
    if any(margin < 0 or margin % 2 for margin in margins):
        raise ValueError(
            f'a kernel of {tuple(weight.shape[-2:])} taps does not embed centred in '
            f'{kernel_size}×{kernel_size}'
        )
    top, left = (margin // 2 for margin in margins)
    return F.pad(weight, (left, left, top, top))


def merge_branches(branches: list[Branch], kernel_size: int) -> tuple[Tensor, Tensor]:
    """Fold parallel depthwise branches, each with its BatchNorm, into one kernel (Fig. 6).

    Args:
        branches: the large kernel and its dilated companions, weights (C, 1, k, k).
        kernel_size: K of the merged kernel.

    Returns:
        Weight (C, 1, K, K) and bias (C,) with `conv(x) = sum of branch(x)`.
    """
    weights, biases = [], []
    for branch in branches:
        weight, bias = fold_batch_norm(branch.weight, branch.bias, branch.norm)
        weights.append(embed_kernel(dilated_to_dense(weight, branch.dilation), kernel_size))
        biases.append(bias)
    return torch.stack(weights).sum(0), torch.stack(biases).sum(0)


def fold_input_bias(weight: Tensor, bias: Tensor | None, input_bias: Tensor) -> Tensor:
    """The bias of a linear layer that takes over a constant added to its input: `W @ input_bias + b`.

    Args:
        weight: (C_out, C_in); bias: (C_out,) or None; input_bias: C_in values, any shape.
    """
    projected = weight @ input_bias.reshape(-1)
    return projected if bias is None else projected + bias


def fold_output_scale(weight: Tensor, bias: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Fold a per-channel factor behind a layer (layer scale, C_out values) into its weight and bias."""
    return weight * scale.reshape(-1, *[1] * (weight.dim() - 1)), bias * scale.flatten()
