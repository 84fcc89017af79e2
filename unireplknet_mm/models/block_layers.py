"""The layers of a block beside its depthwise convolution, and LayerNorm on maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.models import reparameterize as rep
from unireplknet_mm.models.batch_norms import batch_norm_tensors, build_batch_norm
from unireplknet_mm.models.depthwise import build_depthwise_conv, conv_like
from unireplknet_mm.models.layers import with_parameters_like
from unireplknet_ops.feedforward import global_response_norm

torch.fx.wrap(
    'global_response_norm'
)  # a node of its own for torch.fx, which cannot trace its dtypes


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of an NCHW map (`data_format='channels_first'` in ConvNeXt).

    The output has the memory format of the input, NCHW where that has neither.
    """

    def forward(self, x: Tensor) -> Tensor:
        is_traced = not isinstance(x, Tensor)  # by torch.fx
        is_channels_first = is_traced or x.is_contiguous() or x.stride(1) != 1
        x = x.permute(0, 2, 3, 1)  # [N, H, W, C]
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        x = x.permute(0, 3, 1, 2)
        return x.contiguous() if is_channels_first else x


class ToChannelsLast(nn.Module):
    """[N, C, H, W] -> [N, H, W, C]. A module, so that the published indices of a Sequential hold.

    Contiguous, since a linear layer whose weight needs no gradient runs strided maps as one small product
    a row, with the weight copied for each.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous()


class ToChannelsFirst(nn.Module):
    """[N, H, W, C] -> [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class SqueezeExcitation(nn.Module):
    """Squeeze-and-Excitation (arXiv 1709.01507) on NCHW maps, reduction 1/4 (§3.2.1)."""

    def __init__(self, channels: int, squeezed_channels: int):
        super().__init__()
        self.down = nn.Conv2d(channels, squeezed_channels, 1)
        self.up = nn.Conv2d(squeezed_channels, channels, 1)

    def scale(self, x: Tensor) -> Tensor:
        """The factor of each channel, (N, C, 1, 1)."""
        scale = F.adaptive_avg_pool2d(x, 1)
        return torch.sigmoid(self.up(F.relu(self.down(scale))))

    def scale_by_products(self, means: Tensor) -> Tensor:
        """`scale` from the means of each image's channels, both (N, C).

        A matrix product costs half of what a convolution of one position does.
        """
        weight1, bias1, weight2, bias2 = self.matrices()
        return torch.sigmoid(F.linear(F.relu(F.linear(means, weight1, bias1)), weight2, bias2))

    def matrices(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Weight and bias of the two layers, as of linear ones."""
        down, up = self.down, self.up
        return down.weight.flatten(1), down.bias, up.weight.flatten(1), up.bias

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(x)


class ExtraConvolutions(nn.Sequential):
    """Convolutions in the place of SE, each with BatchNorm and ReLU (Table 3a, A to C; Fig. 7).

    The paper names no shortcut around them, so there is none.

    Args:
        structure: 'bottleneck', a 1×1 convolution to a quarter of the channels, a depthwise 3×3 and a 1×1
            back; 'two_1x1', the same without the depthwise one; 'two_dw3x3', two depthwise 3×3.
        channels: C of the (N, C, H, W) input and output.
        norm_cfg, conv_cfg, deploy: as in `DilatedReparamBlock`.
        dilation: of the depthwise convolutions.
    """

    STRUCTURES = ('bottleneck', 'two_1x1', 'two_dw3x3')

    def __init__(
        self,
        structure: str,
        channels: int,
        norm_cfg: dict,
        conv_cfg: dict | None,
        deploy: bool,
        dilation: int = 1,
    ):
        super().__init__()
        self.conv_cfg = conv_cfg
        narrow = max(1, channels // 4)
        reduce, expand = (channels, narrow, 1), (narrow, channels, 1)
        layers = dict(  # channels of input and output, kernel size
            bottleneck=(reduce, (narrow, narrow, 3), expand),
            two_1x1=(reduce, expand),
            two_dw3x3=((channels, channels, 3),) * 2,
        )
        for in_channels, out_channels, kernel_size in layers[structure]:
            if kernel_size == 1:
                self.append(nn.Conv2d(in_channels, out_channels, 1, bias=deploy))
            else:
                conv = build_depthwise_conv(out_channels, kernel_size, conv_cfg, deploy, dilation)
                self.append(conv)
            self.append(nn.Identity() if deploy else build_batch_norm(norm_cfg, out_channels))
            self.append(nn.ReLU())

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold every BatchNorm into the convolution before it, in place. A second call does nothing."""
        for i in range(0, len(self), 3):
            conv, norm = self[i], self[i + 1]
            if isinstance(norm, nn.Identity):
                continue
            dtype = rep.folding_dtype(conv.weight.dtype)
            weight, bias = rep.fold_batch_norm(
                conv.weight.detach().to(dtype), conv.bias, batch_norm_tensors(norm, dtype)
            )
            if conv.kernel_size == (1, 1):
                new = nn.Conv2d(conv.in_channels, conv.out_channels, 1, device='meta')
                self[i] = with_parameters_like(new, conv, weight, bias)
            else:
                self[i] = conv_like(conv, weight, bias, self.conv_cfg)
            self[i + 1] = nn.Identity()


def build_extra_structure(
    structure: str,
    channels: int,
    norm_cfg: dict,
    conv_cfg: dict | None,
    deploy: bool,
    dilation: int,
) -> nn.Module:
    """What stands between a block's depthwise convolution and its FFN: SE, or another of Table 3a.

    Raises:
        ArgumentError: there is no such structure.
    """
    if structure == 'se':
        return SqueezeExcitation(channels, max(1, channels // 4))
    if structure == 'none':
        return nn.Identity()
    if structure not in ExtraConvolutions.STRUCTURES:
        known = ', '.join(('se', 'none', *ExtraConvolutions.STRUCTURES))
        raise ArgumentError(f'extra_structure must be one of {known}, got {structure!r}')
    return ExtraConvolutions(structure, channels, norm_cfg, conv_cfg, deploy, dilation)


class GlobalResponseNorm(nn.Module):
    """Global Response Normalization on [N, H, W, C] maps, by `global_response_norm`."""

    def __init__(self, channels: int, use_bias: bool = True):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels)) if use_bias else None

    def forward(self, x: Tensor) -> Tensor:
        return global_response_norm(x, self.gamma, self.beta)

    def vectors(self) -> list[Tensor | None]:
        """gamma and beta as vectors, (C,)."""
        return [None if tensor is None else tensor.flatten() for tensor in (self.gamma, self.beta)]

    def is_of(self, channels: int) -> bool:
        """Whether gamma and beta have one value a channel, not one for all, which the modules broadcast."""
        return all(t is None or t.numel() == channels for t in (self.gamma, self.beta))
