"""Draw the strip of tasks in README.md, docs/tasks.jpg, from demo data: `python scripts/draw_tasks.py`.

Above what is given; below what there is to find in images, and what other data become before the backbone
sees them: a log-mel spectrogram, a grid of frames, the points on three planes (their number, where the
learned projection has features), the embedding of a window with random weights.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unireplknet_mm.datasets.drawing import DIGIT_NAMES, draw_label_map, draw_scene
from unireplknet_mm.datasets.layouts.series import synthesise
from unireplknet_mm.datasets.motions import draw_moving_digit
from unireplknet_mm.datasets.solids import draw_cloud
from unireplknet_mm.datasets.sounds import draw_sound
from unireplknet_mm.modalities.audio.filterbank import log_mel
from unireplknet_mm.modalities.point_cloud.projection import place_on_views, scatter
from unireplknet_mm.modalities.time_series import SeriesMap
from unireplknet_mm.modalities.video.prediction import draw_clip

OUT = Path(__file__).resolve().parents[1] / 'docs' / 'tasks.jpg'
SIZE = 224
SAMPLE_RATE = 16000


def draw_images(above: np.ndarray, below: np.ndarray) -> None:
    """One digit for its class; several for their boxes and their pixels."""
    one = draw_scene(np.random.default_rng(3), 'train', (SIZE, SIZE), (1, 1), (0.5, 0.6), range(10))
    more = draw_scene(
        np.random.default_rng(5), 'train', (SIZE, SIZE), (3, 3), (0.3, 0.5), range(10)
    )
    for axis, scene in zip(above, (one, more, more), strict=True):
        axis.imshow(scene.image[..., ::-1])
    below[0].imshow(one.image[..., ::-1], alpha=0.35)
    name = DIGIT_NAMES[one.labels[0]]
    below[0].text(SIZE / 2, SIZE / 2, name, ha='center', va='center', fontsize=16, weight='bold')
    boxes = more.image.copy()
    for i in range(len(more.labels)):
        x, y, w, h = cv2.boundingRect((more.owner == i).astype(np.uint8))
        cv2.rectangle(boxes, (x, y), (x + w, y + h), (0, 135, 208), 3)
    below[1].imshow(boxes[..., ::-1])
    below[2].imshow(draw_label_map(more, 1, 0, 0), cmap='tab10', interpolation='nearest')


def draw_recording(above, below) -> None:
    sound = draw_sound(np.random.default_rng(0), 23, 1.0, SAMPLE_RATE).astype(np.float32)
    above.plot(sound, linewidth=0.4)
    below.imshow(log_mel(torch.from_numpy(sound), SAMPLE_RATE).T, origin='lower', aspect='auto')


def draw_video(above, below) -> None:
    rng = np.random.default_rng(2)
    frames = draw_moving_digit(rng, 'train', 'growing', (112, 112), 16, (0.3, 0.35)).frames
    above.imshow(frames[8][..., ::-1])
    below.imshow(draw_clip(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)))


def draw_points(above, below) -> None:
    points = torch.from_numpy(draw_cloud(np.random.default_rng(1), 'train', 'five', 4096).points)
    above.scatter(*points.T, s=1, c=points[:, 1], cmap='viridis')
    above.set_box_aspect(np.ptp(points.numpy(), axis=0))
    places = place_on_views(points[None], 'three_planes', 64)
    planes = scatter(torch.ones(1, len(points), 1), places, 64)[0, :, 0]  # [3, H, W]
    below.imshow((planes / planes.amax(dim=(1, 2), keepdim=True)).permute(1, 2, 0))


def draw_series(above, below) -> None:
    values = torch.from_numpy(synthesise(96, 1, 0)).float()
    above.plot(values, linewidth=1)
    torch.manual_seed(0)
    embedding = SeriesMap(96, 1, 6, calendar=False, position=None).eval()
    with torch.no_grad():
        below.imshow(embedding(((values - values.mean()) / values.std())[None])[0, 0])


def main() -> None:
    titles = (
        'classification',
        'detection',
        'segmentation',
        'audio',
        'video',
        'point clouds',
        'time series',
    )
    figure = Figure(figsize=(2 * len(titles), 4.3), dpi=100, layout='constrained')
    FigureCanvasAgg(figure)
    rows = [
        [
            figure.add_subplot(
                2,
                len(titles),
                row * len(titles) + column + 1,
                projection='3d' if (row, title) == (0, 'point clouds') else None,
            )
            for column, title in enumerate(titles)
        ]
        for row in range(2)
    ]
    above, below = rows
    draw_images(above[:3], below[:3])
    others = (draw_recording, draw_video, draw_points, draw_series)
    for draw, upper, lower in zip(others, above[3:], below[3:], strict=True):
        draw(upper, lower)
    for axis, title in zip(above, titles, strict=True):
        axis.set_title(title)
    for axis in (*above, *below):
        axis.set_axis_off()
    figure.savefig(OUT, pil_kwargs=dict(quality=88))


if __name__ == '__main__':
    main()
