"""Layers in the form that a runtime takes well: the same numbers from other operators."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unireplknet_mm.export.pixel_decoder import RecordablePixelDecoder
from unireplknet_mm.models.blocks import GlobalResponseNorm, UniRepLKNetBlock

POINTWISE = ('linear', 'matmul', 'convolution')


class AveragePool(nn.Module):
    """`nn.AdaptiveAvgPool2d` as two matrix products, for maps whose size is left open.

    Row i of the output is the mean of rows floor(i H / h) to ceil((i + 1) H / h), which are not equally many;
    the exporters turn them into a list of indices, which is that of the size they have seen.

    Args:
        output_size: (h, w).
    """

    def __init__(self, output_size: tuple[int, int]):
        super().__init__()
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        rows = shares(self.output_size[0], height, x)
        columns = shares(self.output_size[1], width, x)
        return rows @ x @ columns.transpose(0, 1)


def shares(parts: int, length: int, like: Tensor) -> Tensor:
    """(parts, length): what each position has of the mean of each part."""
    index = torch.arange(parts, device=like.device)[:, None]
    position = torch.arange(length, device=like.device)[None]
    start = index * length // parts
    end = ((index + 1) * length + parts - 1) // parts
    inside = (position >= start) & (position < end)
    return inside.to(like.dtype) / (end - start).to(like.dtype)


class WrappedConvolution(nn.Module):
    """`nn.Conv1d` with padding_mode='circular', as a plain one behind a concatenation.

    ONNX has such padding from opset 19 on, and OpenVINO not at all.
    """

    def __init__(self, convolution: nn.Conv1d):
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.width = convolution.padding[0]
        self.options = (convolution.stride, 0, convolution.dilation, convolution.groups)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((x[..., -self.width :], x, x[..., : self.width]), dim=-1)
        return torch.nn.functional.conv1d(x, self.weight, self.bias, *self.options)


class PointwiseMatMul(nn.Module):
    """A linear layer over the last axis as a product of two matrices, whatever the axes before it."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.nn.functional.linear(x.reshape(-1, x.shape[-1]), self.weight, self.bias)
        return rows.reshape(*x.shape[:-1], -1)


class ChannelResponseNorm(nn.Module):
    """`GlobalResponseNorm` on [N, C, H, W] maps."""

    def __init__(self, norm: GlobalResponseNorm):
        super().__init__()
        self.gamma = nn.Parameter(norm.gamma.detach().permute(0, 3, 1, 2), requires_grad=False)
        beta = norm.beta
        self.beta = (
            None
            if beta is None
            else nn.Parameter(beta.detach().permute(0, 3, 1, 2), requires_grad=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        scaled = x * (self.gamma * (size / (size.mean(1, keepdim=True) + 1e-6)) + 1)
        return scaled if self.beta is None else scaled + self.beta


def replace_modules(
    model: nn.Module, new: Callable[[nn.Module], nn.Module | None], kind: type[nn.Module] | str
) -> int:
    """Put what `new` makes of each module of a class in its place, unless it is None; their number.

    Args:
        kind: the class, or the name of one of a toolbox that may not be there.
    """
    count = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if kind in (type(child), type(child).__name__) and (other := new(child)) is not None:
                setattr(parent, name, other)
                count += 1
    return count


def open_pools(model: nn.Module) -> int:
    """Let adaptive pools take maps of any size, in place."""

    def new(pool: nn.AdaptiveAvgPool2d) -> nn.Module | None:
        size = pool.output_size
        height, width = size if isinstance(size, tuple | list) else (size, size)
        if height is None or width is None or (height, width) == (1, 1):
            return None
        return AveragePool((height, width))

    return replace_modules(model, new, nn.AdaptiveAvgPool2d)


def wrap_convolutions(model: nn.Module) -> int:
    """Put 1-D convolutions with wrapped ends into a form that all formats have, in place; their number."""

    def new(convolution: nn.Conv1d) -> nn.Module | None:
        is_wrapped = convolution.padding_mode == 'circular' and convolution.padding[0] > 0
        return WrappedConvolution(convolution) if is_wrapped else None

    return replace_modules(model, new, nn.Conv1d)


def record_pixel_decoders(model: nn.Module) -> int:
    """Put Mask2Former's pixel decoders into a form that can be recorded, in place; their number."""
    return replace_modules(model, RecordablePixelDecoder, 'MSDeformAttnPixelDecoder')


def write_pointwise(model: nn.Module, form: str) -> int:
    """Put the pointwise layers of the UniRepLKNet blocks into a form, in place; the number of blocks.

    Args:
        form: 'linear', as they are: products of [N, H, W, C] maps; 'matmul', of matrices; 'convolution',
            1×1 on [N, C, H, W] maps.
    """
    blocks = [module for module in model.modules() if type(module) is UniRepLKNetBlock]
    if form == 'linear':
        return 0
    for block in blocks:
        layers1, layers2 = block.pwconv1, block.pwconv2
        if form == 'matmul':
            layers1[1], layers2[0] = PointwiseMatMul(layers1[1]), PointwiseMatMul(layers2[0])
            continue
        layers1[0], layers2[1] = nn.Identity(), nn.Identity()
        layers1[1], layers2[0] = as_convolution(layers1[1]), as_convolution(layers2[0])
        block.act[1] = ChannelResponseNorm(block.act[1])
    return len(blocks)


def as_convolution(linear: nn.Linear) -> nn.Conv2d:
    """1×1, with the weights of a linear layer."""
    convolution = nn.Conv2d(
        linear.in_features, linear.out_features, 1, bias=linear.bias is not None, device='meta'
    )
    weight = linear.weight.detach()[..., None, None]
    convolution.weight = nn.Parameter(weight, requires_grad=False)
    if linear.bias is not None:
        convolution.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return convolution.train(linear.training)
