"""A linear layer on a map that is scaled and shifted on the way to it, of which backward keeps one map.

In a block's training BatchNorm, Squeeze-and-Excitation and a linear layer follow each other (Fig. 3 of the
paper), and their modules keep three maps: what BatchNorm gets, what it gives, and that times SE's factor.
But all that the first two do to a map is to multiply each channel of each image by a number and to add
another, which follow from the `moments` of BatchNorm's input and from vectors. `scaled_linear` takes them,
keeps the map alone and scales it again for the derivative by its weight.

Both functions compute in every dtype and memory format, on every device, and can be differentiated twice.
"""

from typing import Any

import torch
from torch import Tensor

from unireplknet_mm.models.products import gradient_of_weight, product
from unireplknet_ops.torch_internals import batch_variance


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The moments of a map's channels, and the map to go on with.

    Args:
        x: (N, C, H, W), more than one value a channel.

    Returns:
        x, the means of each image's channels (N, C), and the biased variance of all images' (C,). Whoever
        computes with this x lets the gradients by it and by its moments be added up in one pass.
    """
    return _Moments.apply(x)


def scaled_linear(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
    """The product of `scale * x + shift` and a weight: (N, C, H, W) -> [N, H, W, C_out].

    Args:
        x: (N, C, H, W).
        scale, shift: (N, C), of each image's channels.
        weight: (C_out, C), of a linear layer without bias.
    """
    return _ScaledLinear.apply(x, scale, shift, weight)


class _Moments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        means = x.mean((2, 3))
        ctx.save_for_backward(x, means)
        return x.detach(), means, batch_variance(x)  # `view_as` forgets strides of size 1

    @staticmethod
    def backward(ctx: Any, grad_x: Tensor, grad_means: Tensor, grad_variance: Tensor) -> Tensor:
        x, means = ctx.saved_tensors
        positions = x.shape[2] * x.shape[3]
        slope = grad_variance * (2 / (len(x) * positions))  # of x minus its mean
        constant = grad_means / positions - slope * means.mean(0)
        return torch.addcmul(constant[:, :, None, None], x, slope[:, None, None]).add_(grad_x)


class _ScaledLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale, shift, weight)
        return product(_scaled_rows(x, scale, shift), weight)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, weight = ctx.saved_tensors
        grad_x = grad_scale = grad_shift = grad_weight = None
        if ctx.needs_input_grad[3]:
            grad_weight = gradient_of_weight(grad_output, _scaled_rows(x, scale, shift))
        if any(ctx.needs_input_grad[:3]):
            grad_rows = product(grad_output, weight.t())  # [N, H, W, C]
            grad_shift = grad_rows.sum((1, 2))
            grad_scale = (grad_rows * x.permute(0, 2, 3, 1)).sum((1, 2))
            grad_x = (grad_rows * scale[:, None, None]).permute(0, 3, 1, 2)
        return grad_x, grad_scale, grad_shift, grad_weight


def _scaled_rows(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`scale * x + shift`, [N, H, W, C], contiguous: linear layers run strided maps row by row."""
    scaled = torch.addcmul(shift[:, :, None, None], x, scale[:, :, None, None])
    return scaled.permute(0, 2, 3, 1).contiguous()
