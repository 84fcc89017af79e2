"""Point clouds, for `tools/predict.py`: drawn from aside, as the network sees them, with the classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from unireplknet_mm.modalities.inputs import INPUT_KINDS, InputKind
from unireplknet_mm.modalities.point_cloud.files import SUFFIXES
from unireplknet_mm.modalities.predictions import ClassPrediction

MOST_DRAWN = 2048  # points


def draw_cloud(
    points: Tensor, maps: Tensor | None, lines: Sequence[str] = (), title: str = ''
) -> np.ndarray:
    """A picture (H, W, 3), uint8, RGB: the cloud, each channel of the network's maps, and lines of text.

    Args:
        points: (P, 3), z up.
        maps: (n, H, W), drawn in grey from each one's least value to its largest; None draws none.
        lines: such as classes and their scores.
        title: such as the name of the file.
    """
    columns = 1 + (0 if maps is None else len(maps))
    figure = Figure(figsize=(2.6 * columns, 3.2), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9, parse_math=False)
    figure.text(0.5, 0.01, '    '.join(lines), ha='center', fontsize=9, parse_math=False)
    figure.get_layout_engine().set(rect=(0, 0.08, 1, 0.92))
    axes = figure.add_subplot(1, columns, 1, projection='3d')
    drawn = points[:: -(-len(points) // MOST_DRAWN)].float().cpu().numpy()
    axes.scatter(*drawn.T, s=3, c=drawn[:, 1], cmap='viridis')
    axes.set_box_aspect(np.ptp(drawn, axis=0) + 1e-6)
    axes.set_axis_off()
    for i, one in enumerate(() if maps is None else maps, start=2):
        image = figure.add_subplot(1, columns, i)
        image.imshow(one.float().cpu().numpy(), cmap='gray')
        image.set_axis_off()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


@INPUT_KINDS.register_module()
class PointClouds(InputKind):
    """Files of points and of meshes."""

    name = 'point clouds'
    loaders = ('LoadPointCloud',)
    suffixes = SUFFIXES

    def sample(self, path: Path, index: int) -> dict[str, Any]:
        return dict(cloud_path=str(path), sample_idx=index)

    def draw(
        self, prediction: ClassPrediction, transforms: Sequence[Any], config: dict
    ) -> np.ndarray:
        """The cloud, of several copies the first, and the maps that the backbone gets of it."""
        points = prediction.inputs
        points = points[0] if points.dim() == 3 else points
        return draw_cloud(points, self._maps(points), prediction.lines(), prediction.path.name)

    @torch.no_grad()
    def _maps(self, points: Tensor) -> Tensor | None:
        """The channels of the maps; None where they are no images, as of PointNet."""
        if self.model is None:
            return None
        device = next(self.model.parameters()).device
        maps = self.model.embed(points[None].to(device)).flatten(0, 1)
        return maps if min(maps.shape[1:]) > 1 else None
