"""The shapes of a mask as COCO stores them: polygons and run lengths, exact to the pixel."""

import cv2
import numpy as np


def trace_outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The closed outlines of a mask along its pixels' edges.

    Args:
        mask: (h, w) bool. Pixels that only touch at a corner count as apart.

    Returns:
        (n, 2) arrays of corners (x, y), whole numbers from 0 to w and 0 to h. Outer outlines run
        clockwise (positive area in image coordinates), those of holes the other way round.
    """
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    mask = mask[top : top + height, left : left + width]
    padded = np.pad(mask, 1)
    # The directions 0 to 3 go right, down, left and up along a pixel's top, right, bottom and left
    # edge, so the mask is always on the right-hand side.
    neighbours = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))
    steps = ((1, 0), (0, 1), (-1, 0), (0, -1))
    edges = {
        (x + dx, y + dy, direction)
        for direction, (neighbour, (dx, dy)) in enumerate(zip(neighbours, starts, strict=True))
        for y, x in np.argwhere(mask & ~neighbour).tolist()
    }
    outlines = []
    visited = set()
    for edge in sorted(edges):
        corners = []
        while edge not in visited:
            visited.add(edge)
            x, y, direction = edge
            x, y = x + steps[direction][0], y + steps[direction][1]
            # Where two pixels touch at a corner, the right turn stays at the same pixel.
            turns = [(x, y, (direction + turn) % 4) for turn in (1, 0, -1)]
            edge = next(turn for turn in turns if turn in edges)
            if edge[2] != direction:
                corners.append((left + x, top + y))
        if corners:
            outlines.append(np.array(corners))
    return outlines


def _signed_area(outline: np.ndarray) -> float:
    x, y = outline.T
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Polygons, flat lists [x1, y1, x2, y2, ...], that cover exactly the pixels of a mask.

    COCO's polygons have no holes, and mmdet ignores instances with a run-length mask when it is
    asked for polygons (``poly2mask=False``). A mask with a hole is therefore cut along a column
    through the hole, as often as needed, and the pieces are returned side by side.
    """
    outlines = trace_outlines(mask)
    hole = next((outline for outline in outlines if _signed_area(outline) < 0), None)
    if hole is None:
        return [outline.astype(float).ravel().tolist() for outline in outlines]
    column = (hole[:, 0].min() + hole[:, 0].max()) // 2
    columns = np.arange(mask.shape[1])
    left, right = mask & (columns < column), mask & (columns >= column)
    return mask_to_polygons(left) + mask_to_polygons(right)


def mask_to_rle(mask: np.ndarray) -> dict:
    """The uncompressed run-length form of COCO: column by column, starting with background."""
    flat = np.concatenate([[0], mask.ravel(order='F').astype(np.int8), [0]])
    changes = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], changes, [mask.size]]))
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return dict(size=list(mask.shape), counts=counts.tolist())
