"""A convolution with its norm, a small kernel beside it and an activation (§3.1.2, Fig. 4).

What the networks of the paper's first studies, MobileNet V2 and RepLKNet, are made of.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unireplknet_mm.models import reparameterize as rep
from unireplknet_mm.models.batch_norms import batch_norm_tensors, build_batch_norm
from unireplknet_mm.models.layers import build_conv_layer, with_parameters_like
from unireplknet_ops.convolution_rules import same_padding


class ConvolutionUnit(nn.Module):
    """Convolution -> BN, plus a smaller convolution with its BN (Fig. 4), -> activation.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups: of the convolution, which is padded
            to keep the size at stride 1.
        norm_cfg: the BatchNorm's type; conv_cfg: the convolutions'.
        activation: a function of the sum; None for none.
        small_kernel_size: of the second convolution, of the same stride and dilation; None for none.
        deploy: build the folded structure, one convolution with bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm_cfg: dict = dict(type='BN'),  # noqa: B006
        conv_cfg: dict | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        small_kernel_size: int | None = None,
        deploy: bool = False,
    ):
        super().__init__()
        self.conv_cfg = conv_cfg
        self.activation = activation
        arguments = (in_channels, out_channels, stride, dilation, groups)
        self.conv = self.build_conv(kernel_size, *arguments, bias=deploy)
        self.bn = nn.Identity() if deploy else build_batch_norm(norm_cfg, out_channels)
        self.small_conv = self.small_bn = None
        if small_kernel_size is not None and not deploy:
            self.small_conv = self.build_conv(small_kernel_size, *arguments, bias=False)
            self.small_bn = build_batch_norm(norm_cfg, out_channels)

    def build_conv(
        self,
        kernel_size: int,
        in_channels: int,
        out_channels: int,
        stride: int,
        dilation: int,
        groups: int,
        bias: bool,
    ) -> nn.Conv2d:
        return build_conv_layer(
            self.conv_cfg,
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=same_padding((kernel_size, kernel_size), dilation),
            dilation=dilation,
            groups=groups,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn(self.conv(x))
        if self.small_conv is not None:
            out = out + self.small_bn(self.small_conv(x))
        return out if self.activation is None else self.activation(out)

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold norms and the small branch into the convolution, in place. A second call does nothing."""
        if isinstance(self.bn, nn.Identity):
            return
        conv = self.conv
        dtype = rep.folding_dtype(conv.weight.dtype)
        pairs = [(self.conv, self.bn)]
        if self.small_conv is not None:
            pairs.append((self.small_conv, self.small_bn))
        # Both have the convolution's own dilation, so among themselves they have none.
        branches = [
            rep.Branch(
                conv.weight.detach().to(dtype), batch_norm_tensors(norm, dtype), 1, conv.bias
            )
            for conv, norm in pairs
        ]
        weight, bias = rep.merge_branches(branches, conv.kernel_size[0])
        with torch.device('meta'):
            new = self.build_conv(
                conv.kernel_size[0],
                conv.in_channels,
                conv.out_channels,
                conv.stride[0],
                conv.dilation[0],
                conv.groups,
                bias=True,
            )
        self.conv = with_parameters_like(new, conv, weight, bias)
        self.bn = nn.Identity()
        self.small_conv = self.small_bn = None
