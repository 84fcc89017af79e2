"""Several views of one cloud: their features side by side."""

from mmengine.registry import MODELS
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError


@MODELS.register_module()
class ConcatenateViews(nn.Module):
    """A neck: features (B·V, C) of views that follow each other -> (B, V·C), as the published code's head.

    Maps (B·V, C, H, W) are averaged over their places first. With UniRepLKNet's `gap_before_final_norm` each
    view is normalised by itself; the code normalises all together.

    Args:
        num_views: V.
    """

    def __init__(self, num_views: int = 4):
        super().__init__()
        if num_views < 1:
            raise ArgumentError(f'num_views must be at least 1, got {num_views}')
        self.num_views = num_views

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self._concatenate(one) for one in features)

    def _concatenate(self, features: Tensor) -> Tensor:
        if features.dim() == 4:
            features = features.mean((2, 3))
        if len(features) % self.num_views:
            raise ArgumentError(f'{len(features)} maps are no {self.num_views} views of each cloud')
        return features.reshape(-1, self.num_views * features.shape[1])
