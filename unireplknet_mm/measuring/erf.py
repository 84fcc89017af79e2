"""The effective receptive field: how much each input pixel counts for the centre of the last map.

Definition of RepLKNet (arXiv 2203.06717; its code is `erf/` of DingXiaoH/RepLKNet-pytorch),
by which Fig. 2 of the UniRepLKNet paper (arXiv 2410.08049) is drawn: the gradient of the positive values in
the centre of the last map, summed over its channels, by the input; its positive part, summed over the
input's channels, averaged over the images. The high-contribution area ratio of a threshold t is the area of
the smallest centred square that holds more than a share t of the scores, in the area of the input.

That code takes log10(score + 1) before it looks for squares. So it is here by default, to compare with
published figures; but a logarithm with a 1 in it depends on the size of the gradients: scores far below 1
stay as they are, scores far above are levelled, and the "field" of the same network grows when its output is
multiplied by a number. `is_logarithmic=False` takes the scores themselves, whose shares no factor changes:
for networks of random weights, and for those whose last map is not normalised.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unireplknet_mm.errors import ArgumentError

THRESHOLDS = (0.2, 0.3, 0.5, 0.99)  # of the papers

LastMap = Callable[[Tensor], Tensor]


class Square(NamedTuple):
    """The smallest centred square with more than a share of the scores."""

    side: int  # in pixels
    area_ratio: float  # in the area of the input


class Field(NamedTuple):
    """What was found of one network."""

    name: str
    scores: Tensor  # (H, W), float64, averaged over the images
    map_size: tuple[int, int]
    num_images: int
    is_interrupted: bool = False  # by Ctrl-C, before all images


def contribution_scores(last_map: LastMap, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """How much each position of an image counts for the centre of a network's last map.

    Args:
        last_map: (1, C, H, W) -> (1, C', H', W'), in evaluation mode.
        image: (1, C, H, W).

    Returns:
        (H, W), float64, from 0 on; and the size of the map, (H', W').

    Raises:
        ArgumentError: the network's output is no map.
    """
    image = image.detach().clone().requires_grad_()
    feature = last_map(image)
    if feature.dim() != 4 or feature.shape[0] != 1:
        raise ArgumentError(f'the last map must be (1, C, H, W), got {tuple(feature.shape)}')
    height, width = feature.shape[2:]
    centre = feature[:, :, height // 2, width // 2].relu().sum()
    (gradient,) = torch.autograd.grad(centre, image)
    return gradient.relu().sum((0, 1)).double().cpu(), (height, width)


def measure_field(
    name: str,
    last_map: LastMap,
    images: Iterable[Tensor],
    report: Callable[[int], None] | None = None,
) -> Field:
    """The effective receptive field of a network, averaged over images of one size.

    Images for which a score is not finite are left out, as in RepLKNet's code. Ctrl-C ends it with the images
    so far, if there are any.

    Args:
        name: of the network.
        last_map, images: as in `contribution_scores`.
        report: told how many images are done.

    Raises:
        ArgumentError: there is no image with finite scores, or no score is above 0.
    """
    total, count, map_size, left_out, is_interrupted = None, 0, (0, 0), 0, False
    try:
        for image in images:
            scores, map_size = contribution_scores(last_map, image)
            if not scores.isfinite().all():
                left_out += 1
                continue
            total = scores if total is None else total + scores
            count += 1
            if report is not None:
                report(count)
    except KeyboardInterrupt:
        if total is None:
            raise
        is_interrupted = True
    if total is None:
        raise ArgumentError(
            f'{name}: no image gave finite scores ({left_out} did not): the weights may be broken'
        )
    if not total.any():
        raise ArgumentError(
            f'{name}: no pixel counts for the centre of the last map: its values there are all below 0'
        )
    return Field(name, total / count, map_size, count, is_interrupted)


def readable(scores: Tensor, is_logarithmic: bool = True) -> Tensor:
    """Scores as they are drawn and summed, between 0 and 1; see the top for the logarithm."""
    scores = torch.log10(scores + 1) if is_logarithmic else scores
    return scores / scores.max()


def smallest_square(scores: Tensor, threshold: float) -> Square:
    """The smallest square around the centre with more than a share `threshold` of the scores.

    The centre is row ⌊H/2⌋ and column ⌊W/2⌋, the sides are odd until the square reaches the border, which
    cuts it off; RepLKNet's code ends there and begins with a side of 3.

    Args:
        scores: (H, W), from 0 on, not all 0.
        threshold: in [0, 1).
    """
    height, width = scores.shape
    y, x = height // 2, width // 2
    sums = torch.nn.functional.pad(scores.double(), (1, 0, 1, 0)).cumsum(0).cumsum(1)
    total = sums[-1, -1]
    reaches = torch.arange(max(y, x) + 1)
    top, left = (y - reaches).clamp(min=0), (x - reaches).clamp(min=0)
    bottom, right = (y + reaches + 1).clamp(max=height), (x + reaches + 1).clamp(max=width)
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    # Sums in another order than the total's may miss it by rounding.
    enough = (inside > threshold * total) | ((bottom - top == height) & (right - left == width))
    reach = int(enough.int().argmax())
    sides = int(bottom[reach] - top[reach]), int(right[reach] - left[reach])
    return Square(max(sides), sides[0] * sides[1] / (height * width))


def squares_of(field: Field, is_logarithmic: bool = True) -> list[Square]:
    """The squares of `THRESHOLDS`."""
    scores = readable(field.scores, is_logarithmic)
    return [smallest_square(scores, threshold) for threshold in THRESHOLDS]


def markdown(fields: Sequence[Field], is_logarithmic: bool = True) -> str:
    """A table, a row a network: the area ratios in percent, the sides of the squares in pixels."""
    scores = 'log10(score + 1)' if is_logarithmic else 'scores'
    headings = [f'{threshold:.0%}' for threshold in THRESHOLDS]
    lines = [
        f'High-contribution area ratio, % of the input (side of the square in pixels), of {scores}',
        '',
        f'| network | input | last map | images | {" | ".join(headings)} |',
        f'|---|---|---|---|{"---|" * len(headings)}',
    ]
    for field in fields:
        squares = squares_of(field, is_logarithmic)
        cells = [f'{100 * square.area_ratio:.1f} ({square.side})' for square in squares]
        height, width = field.scores.shape
        sizes = f'{height}×{width} | {field.map_size[0]}×{field.map_size[1]}'
        lines.append(f'| {field.name} | {sizes} | {field.num_images} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def check_picture(path: Path) -> None:
    """See, before the time for measuring is spent, that matplotlib writes such a file.

    Raises:
        ArgumentError: it does not.
    """
    from matplotlib.figure import Figure

    if path.suffix.lstrip('.').lower() not in Figure().canvas.get_supported_filetypes():
        raise ArgumentError(
            f'{path}: matplotlib writes no such files: end the name with .png or .pdf'
        )


def draw(fields: Sequence[Field], path: Path, is_logarithmic: bool = True) -> None:
    """The fields side by side, each scaled to its largest score, with the square of the 50 % share."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = min(4, len(fields))
    rows = -(-len(fields) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.7 * rows), layout='constrained')
    for i, field in enumerate(fields, start=1):
        axes = figure.add_subplot(rows, columns, i)
        scores = readable(field.scores, is_logarithmic)
        picture = axes.imshow(
            scores.numpy(), cmap='Greens', vmin=0, vmax=1, interpolation='nearest'
        )
        square = squares_of(field, is_logarithmic)[THRESHOLDS.index(0.5)]
        height, width = scores.shape
        corner = width // 2 - square.side // 2 - 0.5, height // 2 - square.side // 2 - 0.5
        axes.add_patch(
            Rectangle(
                corner, square.side, square.side, fill=False, edgecolor='crimson', linewidth=0.8
            )
        )
        axes.set_title(f'{field.name}\n50% in {100 * square.area_ratio:.1f}%', fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(picture, ax=figure.axes, shrink=0.6)
    figure.savefig(path, dpi=200)
