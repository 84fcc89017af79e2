"""The bridge of point clouds: learned projections onto planes, as images (§3.3, Eq. 4).

The paper says that "a series of conv layers" generates three-view projections of 3×224×224, after
Meta-Transformer, and no more. Its published code follows P2P: features of the points from their neighbours
(an EdgeConv of 32 neighbours, 8 then 64 channels, GroupNorm, maximum), scattered onto the pixel of a view
that each falls on and the eight around it, then a residual block of two 3×3 convolutions, two 1×1 ones down
to 3 channels, a sigmoid and ImageNet's normalisation. The layers and their sizes here are those of the code,
and so is the scale: a cloud fills its view but for a border of a pixel. What differs from the code:

- `form='three_planes'`, the paper's: the cloud on the planes xy, xz and yz, each made one channel of one map
  by the same weights. The code has no such form. `form='four_views'` is the code's: the cloud from four sides
  around an axis, each an image of 3 channels; they follow each other in the batch, and a neck,
  `ConcatenateViews`, puts their features side by side.
- `splat='smooth'` weights the nine pixels by a quadratic B-spline of the point's place between them, so that
  the image follows the points and has a gradient to their coordinates. `splat='box'` is the code's: all nine
  count one, and the coordinates are rounded.
- `reduce='softmax'` takes, of the points that meet in a pixel, the mean weighted by the soft-max of a learned
  score of their features; the code, and `reduce='sum'`, add up.
- All views of a cloud have one scale, that of its bounding cube; in the code each is fitted on its own.
- Features are of the points as given. The code takes those before rotation, scaling and shifting.
- The code lets its views see each other in one layer of attention over 7×7 patches. That is left out.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.point_cloud.neighbours import nearest_neighbours

# The axes that run along an image's rows and columns, and their signs. The four views are those of the
# published code: the cloud is turned by a quarter around z, then by 0 to 3 quarters around x. As nothing
# hides anything, the last two are the first two mirrored.
FORMS = {
    'three_planes': (((0, 1), (1, 1)), ((0, 2), (1, 1)), ((1, 2), (1, 1))),
    'four_views': (
        ((1, 0), (-1, 1)),
        ((1, 2), (-1, -1)),
        ((1, 0), (-1, -1)),
        ((1, 2), (-1, 1)),
    ),
}
SPLATS = ('smooth', 'box')
REDUCTIONS = ('sum', 'softmax')
OFFSETS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1))
SMALLEST_EXTENT = 1e-12  # of a cloud whose points are all the same, which fall into the middle


class LocalFeatures(nn.Module):
    """(B, P, 3) -> (B, P, channels): an EdgeConv over each point's nearest neighbours.

    The features of an edge are a linear layer of (f_j - f_i, f_i), with f a linear layer of the coordinates,
    then GroupNorm and LeakyReLU; a point's are the maximum over its edges, through another linear layer.
    """

    def __init__(self, num_neighbours: int, point_channels: int, channels: int):
        super().__init__()
        self.num_neighbours = num_neighbours
        self.lift = nn.Linear(3, point_channels)
        self.of_neighbour = nn.Linear(point_channels, channels, bias=False)
        self.of_point = nn.Linear(point_channels, channels, bias=False)
        self.norm = nn.GroupNorm(4, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, points: Tensor) -> Tensor:
        neighbours = nearest_neighbours(points, self.num_neighbours)  # [B, P, k]
        lifted = self.lift(points)
        # W1 (f_j - f_i) + W2 f_i as W1 f_j + (W2 - W1) f_i: a product a point, not one an edge.
        values = self.of_neighbour(lifted)
        batch = torch.arange(points.shape[0], device=points.device)[:, None, None]
        edges = values[batch, neighbours] + (self.of_point(lifted) - values)[:, :, None]
        edges = F.leaky_relu(self.norm(edges.permute(0, 3, 1, 2)), 0.2)  # [B, C, P, k]
        return self.out(edges.amax(3).transpose(1, 2))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm and a shortcut (He et al.)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


def place_on_views(points: Tensor, form: str, size: int) -> Tensor:
    """The coordinates of points in the pixels of each view.

    The bounding cube of a cloud, of which the middle is the middle of the image, reaches from the middle of
    the second pixel to that of the last but one.

    Args:
        points: (B, P, 3), of single precision at least.
        form: of `FORMS`.
        size: of an image, in pixels.

    Returns:
        (B, V, P, 2), rows and columns from 1 to size - 2.
    """
    lowest, highest = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
    extent = (highest - lowest).amax(2, keepdim=True).clamp_min(SMALLEST_EXTENT)
    scaled = (points - (lowest + highest) / 2) / extent * (size - 3)
    views = [
        torch.stack([sign * scaled[..., axis] for axis, sign in zip(axes, signs, strict=True)], -1)
        for axes, signs in FORMS[form]
    ]
    return torch.stack(views, 1) + (size - 1) / 2


def spline_weights(distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The quadratic B-spline at the pixel before, the nearest and the one behind; they add up to 1.

    Args:
        distance: from the nearest pixel's middle, from -0.5 to 0.5.
    """
    return (
        0.5 * (0.5 - distance).square(),
        0.75 - distance.square(),
        0.5 * (0.5 + distance).square(),
    )


def scatter(
    features: Tensor, places: Tensor, size: int, splat: str = 'smooth', scores: Tensor | None = None
) -> Tensor:
    """Points' features onto the nine pixels around each; on a CPU the same bits every time.

    Args:
        features: (B, P, C); every view gets the same.
        places: (B, V, P, 2), rows and columns, as of `place_on_views`.
        size: of an image, in pixels.
        splat: 'smooth' or 'box', the weights of the nine.
        scores: (B, P), of which the soft-max weights the points that meet in a pixel, those of a pixel among
            each other; None adds them up.

    Returns:
        (B, V, C, size, size), of the type of the places; 0 where no point is.
    """
    batch, views, _, _ = places.shape
    features = features.to(places.dtype)
    if scores is not None:  # the sum of the weights is one channel more
        features = torch.cat([features, torch.ones_like(features[..., :1])], -1)
    channels = features.shape[-1]
    # A coordinate that is NaN has no place; its weights are NaN and tell.
    nearest = places.detach().round().long().clamp(1, size - 2)
    image = torch.arange(batch * views, device=places.device).view(batch, views, 1) * size**2
    first = (image + nearest[..., 0] * size + nearest[..., 1]).flatten()
    rows, columns = (spline_weights(d) for d in (places - nearest).unbind(-1))
    features = features[:, None]  # [B, 1, P, C]
    if scores is not None:
        scores = scores.to(places.dtype)[:, None].expand(-1, views, -1)  # [B, V, P]
        largest = _largest_in_pixels(
            scores.detach().flatten(), first, batch * views * size**2, size
        )
    canvas = features.new_zeros(batch * views * size**2, channels)
    for down, right in OFFSETS:  # one after the other, which needs a ninth of the memory
        pixels = first + (down * size + right)
        values = features.expand(-1, views, -1, -1)
        if splat == 'smooth':
            values = values * (rows[down + 1] * columns[right + 1])[..., None]
        if scores is not None:
            values = values * (scores - largest[pixels].view_as(scores)).exp()[..., None]
        canvas.index_add_(0, pixels, values.reshape(-1, channels))
    maps = canvas.view(batch, views, size, size, channels)
    if scores is not None:
        total = maps[..., -1:]
        maps = maps[..., :-1] / torch.where(total == 0, 1, total)
    return maps.permute(0, 1, 4, 2, 3)


def _largest_in_pixels(scores: Tensor, first: Tensor, pixels: int, size: int) -> Tensor:
    """(pixels,): of scores (n,), the largest that falls on each pixel from the 3×3 around `first` (n,)."""
    largest = scores.new_full((pixels,), -torch.inf)
    for down, right in OFFSETS:
        largest.scatter_reduce_(0, first + (down * size + right), scores, 'amax')
    return largest


@MODELS.register_module()
class ThreeViewProjection(BaseModule):
    """(B, P, 3) points -> (B, 3, size, size), or of four views (4 B, 3, size, size); see above.

    Args:
        form: 'three_planes', the paper's, or 'four_views', the published code's.
        size: of an image, in pixels, 224 in the paper; at least 8.
        num_neighbours: k of the local features; a cloud has as many points at least.
        point_channels: of a point by itself.
        channels: of the local features and of the maps before the last convolution, a multiple of 4.
        splat: 'smooth', differentiable in the coordinates, or 'box', the published code's.
        reduce: 'sum' or 'softmax', of the points that meet in a pixel.
        mean, std: of the 3 channels, by which what comes out, from 0 to 1, is normalised: ImageNet's, for
            weights that were trained on images.

    Raises:
        ArgumentError: a value is unknown or out of range; when it runs, the input is no (B, P, 3) or a cloud
            has fewer points than neighbours.
    """

    def __init__(
        self,
        form: str = 'three_planes',
        size: int = 224,
        num_neighbours: int = 32,
        point_channels: int = 8,
        channels: int = 64,
        splat: str = 'smooth',
        reduce: str = 'sum',
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        known = dict(form=(form, FORMS), splat=(splat, SPLATS), reduce=(reduce, REDUCTIONS))
        for name, (value, values) in known.items():
            if value not in values:
                raise ArgumentError(f'{name} must be {" or ".join(values)}, got {value!r}')
        least = dict(size=8, num_neighbours=1, point_channels=1, channels=4)
        given = (size, num_neighbours, point_channels, channels)
        for (name, smallest), value in zip(least.items(), given, strict=True):
            if value < smallest:
                raise ArgumentError(f'{name} must be at least {smallest}, got {value}')
        if channels % 4:
            raise ArgumentError(f'channels must be a multiple of 4, got {channels}')
        self.form = form
        self.size = size
        self.splat = splat
        self.reduce = reduce
        self.features = LocalFeatures(num_neighbours, point_channels, channels)
        if reduce == 'softmax':
            # Without a bias, which a soft-max does not see.
            self.score = nn.Linear(channels, 1, bias=False)
        self.block = ResidualBlock(channels)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.to_image = nn.Conv2d(channels, 1 if form == 'three_planes' else 3, 1)
        for name, values in dict(mean=mean, std=std).items():
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    @property
    def num_views(self) -> int:
        """How many maps in the batch a cloud becomes."""
        return 1 if self.form == 'three_planes' else len(FORMS[self.form])

    def forward(self, points: Tensor) -> Tensor:
        if points.dim() != 3 or points.shape[2] != 3:
            raise ArgumentError(f'point clouds are (B, P, 3), got {tuple(points.shape)}')
        features = self.features(points)
        scores = self.score(features)[..., 0] if self.reduce == 'softmax' else None
        # Half precision would neither tell the pixels of an image apart nor add up thousands of points.
        exact = points.to(torch.promote_types(points.dtype, torch.float32))
        places = place_on_views(exact, self.form, self.size)
        maps = scatter(features, places, self.size, self.splat, scores).flatten(0, 1)
        images = self.to_image(self.mix(self.block(maps))).sigmoid()  # [B·V, 1 or 3, H, W]
        if self.form == 'three_planes':
            images = images.view(points.shape[0], 3, self.size, self.size)
        return (images - self.mean) / self.std

    def extra_repr(self) -> str:
        return f'form={self.form!r}, size={self.size}, splat={self.splat!r}, reduce={self.reduce!r}'
