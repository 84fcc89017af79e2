"""Large-kernel networks that are compared with and that no library builds on the op: RepLKNet and SLaK-T.

Structure only, to be timed: no published weights load into them. Every depthwise convolution of stride 1 is
the suite's own, so that the networks are compared and not the convolutions. Parameters are counted
against the two papers in the tests.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unireplknet_mm.models import reparameterize as rep
from unireplknet_mm.models.batch_norms import batch_norm_tensors
from unireplknet_mm.models.block_layers import LayerNorm2d
from unireplknet_mm.models.replknet import FoldableRepLKNet
from unireplknet_ops import DepthwiseConv2d


class ParallelKernels(nn.Module):
    """Depthwise convolutions of several sizes side by side, each with BatchNorm, added up.

    Args:
        channels: C of the (N, C, H, W) input and output.
        kernel_sizes: (height, width) of each kernel, odd.
    """

    def __init__(self, channels: int, kernel_sizes: Sequence[tuple[int, int]]):
        super().__init__()
        self.convs = nn.ModuleList(
            DepthwiseConv2d(channels, kernel_size=size, bias=False) for size in kernel_sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in kernel_sizes)

    def forward(self, x: Tensor) -> Tensor:
        return sum(norm(conv(x)) for conv, norm in zip(self.convs, self.norms, strict=True))

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Fold the BatchNorms, and each kernel into the first one that covers it."""
        merged: list[tuple[Tensor, Tensor]] = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            if not isinstance(norm, nn.BatchNorm2d):
                return
            norm_tensors = batch_norm_tensors(norm, rep.folding_dtype(conv.weight.dtype))
            weight, bias = rep.fold_batch_norm(
                conv.weight.detach().to(norm_tensors.mean.dtype), None, norm_tensors
            )
            for i, (large, large_bias) in enumerate(merged):
                margins = [
                    (a - b) // 2 for a, b in zip(large.shape[2:], weight.shape[2:], strict=True)
                ]
                if min(margins) >= 0:
                    vertical, horizontal = margins
                    weight = F.pad(weight, (horizontal, horizontal, vertical, vertical))
                    merged[i] = (large + weight, large_bias + bias)
                    break
            else:
                merged.append((weight, bias))
        dtype, channels = self.convs[0].weight.dtype, self.convs[0].in_channels
        training = self.training
        self.convs = nn.ModuleList()
        for weight, bias in merged:
            conv = DepthwiseConv2d(
                channels, kernel_size=tuple(weight.shape[2:]), device=weight.device
            )
            conv.load_state_dict(dict(weight=weight, bias=bias))
            self.convs.append(conv.to(dtype))
        self.norms = nn.ModuleList(nn.Identity() for _ in merged)
        self.train(training)


class RepLKNetClassifier(nn.Module):
    """RepLKNet with a linear layer on the global average: (N, 3, H, W) -> (N, num_classes).

    Args:
        settings: of `FoldableRepLKNet`: `channels`, `depths`, `kernel_sizes`.
    """

    def __init__(self, num_classes: int = 1000, **settings: Any):
        super().__init__()
        self.backbone = FoldableRepLKNet(out_indices=(3,), has_final_norm=True, **settings)
        self.head = nn.Linear(self.backbone.out_channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)[-1].mean((-2, -1)))


class SLaKBlock(nn.Module):
    """ConvNeXt's block with K×5, 5×K and 5×5 kernels side by side in the place of 7×7."""

    def __init__(self, channels: int, kernel_size: int, small_kernel_size: int = 5):
        super().__init__()
        small = small_kernel_size
        sizes = [(kernel_size, small), (small, kernel_size), (small, small)]
        self.large_kernel = ParallelKernels(channels, sizes)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.large_kernel(x).permute(0, 2, 3, 1))  # [N, H, W, C]
        y = self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + (self.gamma * y).permute(0, 3, 1, 2)


class SLaK(nn.Sequential):
    """SLaK (arXiv 2207.03620, §4), a classifier: (N, 3, H, W) -> (N, num_classes).

    Its weights are sparse, 40 % of them zero, which makes no dense convolution or product faster: it costs
    what its dense form costs, 1.3 times as wide as ConvNeXt.

    Args:
        channels, depths, kernel_sizes: four numbers each, those of T by default.
        width: what the channels are multiplied by, rounded down.
    """

    def __init__(
        self,
        channels: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (3, 3, 9, 3),
        kernel_sizes: Sequence[int] = (51, 49, 47, 13),
        width: float = 1.3,
        num_classes: int = 1000,
    ):
        channels = [int(width * count) for count in channels]
        layers = []
        for i, (wide, depth, kernel_size) in enumerate(
            zip(channels, depths, kernel_sizes, strict=True)
        ):
            if i == 0:
                layers += [nn.Conv2d(3, wide, 4, stride=4), LayerNorm2d(wide, eps=1e-6)]
            else:
                narrow = channels[i - 1]
                layers += [LayerNorm2d(narrow, eps=1e-6), nn.Conv2d(narrow, wide, 2, stride=2)]
            layers += [SLaKBlock(wide, kernel_size) for _ in range(depth)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(wide, eps=1e-6)]
        super().__init__(*layers, *head, nn.Linear(wide, num_classes))


PEERS = {
    'replknet_31b': RepLKNetClassifier,
    'replknet_31l': lambda: RepLKNetClassifier(channels=(192, 384, 768, 1536)),
    'slak_t': SLaK,
}
