"""PointNet (Qi et al. 2017), the network to compare with: each point by itself, then the maximum over all.

It sees a cloud as a column of points, (B, 3, P, 1), so that its layers are 1×1 convolutions and every tool
treats it as any backbone. Of the paper's two learned transforms it has that of the input; that of the
features, which only helps with a loss of its own (the paper's Table 5), is left out.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError


def _pointwise(channels: Sequence[int]) -> nn.Sequential:
    """1×1 convolutions, each with BatchNorm and ReLU."""
    layers = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


def _fully_connected(channels: Sequence[int]) -> nn.Sequential:
    """Linear layers, each with LayerNorm and ReLU."""
    layers = []
    for before, after in pairwise(channels):
        layers += [nn.Linear(before, after, bias=False), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers)


@MODELS.register_module()
class PointColumn(nn.Module):
    """(B, P, 3) -> (B, 3, P, 1), the embedding in front of `PointNet`; without parameters."""

    def forward(self, points: Tensor) -> Tensor:
        if points.dim() != 3 or points.shape[2] != 3:
            raise ArgumentError(f'point clouds are (B, P, 3), got {tuple(points.shape)}')
        return points.transpose(1, 2).unsqueeze(3)


class InputTransform(nn.Module):
    """A 3×3 matrix for the coordinates of a whole cloud, computed from it; the identity at first."""

    def __init__(self, channels: Sequence[int], hidden: Sequence[int] = (512, 256)):
        super().__init__()
        self.points = _pointwise((3, *channels))
        self.cloud = _fully_connected((channels[-1], *hidden))
        self.matrix = nn.Linear(hidden[-1], 9)
        nn.init.zeros_(self.matrix.weight)
        nn.init.zeros_(self.matrix.bias)

    def forward(self, column: Tensor) -> Tensor:
        of_cloud = self.cloud(self.points(column).amax((2, 3)))
        identity = torch.eye(3, device=column.device, dtype=of_cloud.dtype)
        matrix = self.matrix(of_cloud).view(-1, 3, 3) + identity
        return (matrix @ column[..., 0].to(matrix.dtype)).unsqueeze(3)


@MODELS.register_module()
class PointNet(BaseModule):
    """(B, 3, P, 1) -> a tuple of the features (B, channels[-1]).

    Where the paper has BatchNorm between the fully connected layers of the transform, LayerNorm is taken,
    which does not depend on the batch. The classifier behind it, of the hidden layers 512 and 256 in the
    paper, is `hidden_channels` and the linear head.

    Args:
        channels: of the layers before the maximum.
        hidden_channels: of the layers behind it; the last are the features.
        dropout: behind them; 0.3 in the paper's code.
    """

    in_channels = 3

    def __init__(
        self,
        channels: Sequence[int] = (64, 64, 64, 128, 1024),
        hidden_channels: Sequence[int] = (512, 256),
        dropout: float = 0.3,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        self.transform = InputTransform(channels[-3:], hidden_channels)
        self.points = _pointwise((3, *channels))
        self.cloud = _fully_connected((channels[-1], *hidden_channels))
        self.dropout = nn.Dropout(dropout)

    def forward(self, column: Tensor) -> tuple[Tensor]:
        features = self.points(self.transform(column)).amax((2, 3))
        return (self.dropout(self.cloud(features)),)
