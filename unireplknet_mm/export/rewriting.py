"""Layers in the form that a runtime takes well: the same numbers from other operators."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unireplknet_mm.export.pixel_decoder import RecordablePixelDecoder
from unireplknet_mm.models.block_layers import GlobalResponseNorm, SqueezeExcitation
from unireplknet_mm.models.blocks import UniRepLKNetBlock

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


class RowwiseResponseNorm(nn.Module):
    """`GlobalResponseNorm`, with the norm of a map as that of the norms of its rows.

    Runtimes, and PyTorch, add the squares of a whole map one after another: in float32 the norm of 200×336
    values is then off by up to 5e-4, and so by 2e-6. It is no norm of norms, which OpenVINO joins again.

    Args:
        norm: whose gamma and beta it has.
        channels_first: maps are [N, C, H, W] instead of [N, H, W, C].
        by_rows: without it, the norm is one of the whole map.
    """

    def __init__(
        self, norm: GlobalResponseNorm, channels_first: bool = False, by_rows: bool = True
    ):
        super().__init__()
        self.by_rows = by_rows
        self.rows, self.columns, self.channels = (2, 3, 1) if channels_first else (1, 2, 3)
        for name in ('gamma', 'beta'):
            value = getattr(norm, name)
            if value is not None:
                value = value.detach().permute(0, 3, 1, 2) if channels_first else value.detach()
                value = nn.Parameter(value, requires_grad=False)
            self.register_parameter(name, value)

    def forward(self, x: Tensor) -> Tensor:
        axes = self.columns if self.by_rows else (self.rows, self.columns)
        size = torch.linalg.vector_norm(x, dim=axes, keepdim=True, dtype=_wide(x.dtype))
        if self.by_rows:
            size = size.pow(2).sum(self.rows, keepdim=True).sqrt()
        response = size / (size.mean(self.channels, keepdim=True) + 1e-6)
        scaled = x * (self.gamma * response + 1).to(x.dtype)
        return scaled if self.beta is None else scaled + self.beta.to(x.dtype)


class RowwiseSqueeze(nn.Module):
    """`SqueezeExcitation`, with the mean of a map from the means of its rows, for the same reason."""

    def __init__(self, squeeze: SqueezeExcitation):
        super().__init__()
        self.down, self.up = squeeze.down, squeeze.up

    def forward(self, x: Tensor) -> Tensor:
        of_rows = x.mean(3, keepdim=True, dtype=_wide(x.dtype))
        means = (of_rows.sum(2, keepdim=True) / x.shape[2]).to(x.dtype)
        return x * torch.sigmoid(self.up(torch.relu(self.down(means))))


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What sums of many values are taken in."""
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


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


def write_pointwise(model: nn.Module, form: str, by_rows: bool = True) -> int:
    """Put the pointwise layers of the UniRepLKNet blocks into a form, in place; the number of blocks.

    The response norms between them become `RowwiseResponseNorm`, and squeezes `RowwiseSqueeze`.

    Args:
        form: 'linear', as they are: products of [N, H, W, C] maps; 'matmul', of matrices; 'convolution',
            1×1 on [N, C, H, W] maps.
        by_rows: sum means and norms of maps by rows. Not for int8: NNCF leaves the usual forms in floating
            point, and rounds these.
    """
    blocks = [module for module in model.modules() if type(module) is UniRepLKNetBlock]
    for block in blocks:
        layers1, layers2 = block.pwconv1, block.pwconv2
        block.act[1] = RowwiseResponseNorm(block.act[1], form == 'convolution', by_rows)
        if by_rows and type(block.se) is SqueezeExcitation:
            block.se = RowwiseSqueeze(block.se)
        if form == 'linear':
            continue
        if form == 'matmul':
            layers1[1], layers2[0] = PointwiseMatMul(layers1[1]), PointwiseMatMul(layers2[0])
            continue
        layers1[0], layers2[1] = nn.Identity(), nn.Identity()
        layers1[1], layers2[0] = as_convolution(layers1[1]), as_convolution(layers2[0])
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
