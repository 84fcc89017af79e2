"""The picture of a recording: waveform, spectrogram as the network sees it, and what was predicted."""

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from unireplknet_mm.modalities.audio.filterbank import STEP_SECONDS

WIDTH = 2000  # columns of a waveform or spectrogram that are drawn; the picture has 900 pixels
MOST_PARTS = 40  # that are named beside each other


def draw_recording(
    waveform: Tensor,
    sample_rate: int,
    spectrogram: Tensor,
    prediction: Sequence[str],
    title: str = '',
    parts: Sequence[tuple[float, str]] = (),
) -> np.ndarray:
    """A picture (H, W, 3), uint8, RGB.

    Args:
        waveform: (samples,).
        spectrogram: normalised, (T, F).
        prediction: in words, by lines.
        title: such as the file's name.
        parts: where each part begins that was predicted for itself, in seconds, and what it is; of more than
            can be read some are left out.
    """
    figure = Figure(figsize=(9, 5), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, height_ratios=(1, 2))
    _plot(upper, waveform, sample_rate)
    upper.set_xlim(0, len(waveform) / sample_rate)
    upper.set_ylabel('amplitude')
    upper.set_title(title, parse_math=False)
    frames, bins = spectrogram.shape
    first = parts[0][0] if parts else 0.0
    image = lower.imshow(
        _narrowed(spectrogram.float().T).numpy(),
        origin='lower',
        aspect='auto',
        extent=(first, first + frames * STEP_SECONDS, 0, bins),
    )
    lower.set(xlabel='seconds', ylabel='mel bin')
    for start, name in _legible(parts, frames * STEP_SECONDS):
        lower.axvline(start, color='white', linewidth=0.8)
        lower.text(start, 0, f' {name}', color='white', va='bottom', fontsize=8, parse_math=False)
    figure.colorbar(image, ax=lower, label='normalised log-mel')
    lower.text(
        0.99,
        0.97,
        '\n'.join(prediction),
        transform=lower.transAxes,
        ha='right',
        va='top',
        parse_math=False,
        bbox=dict(facecolor='white', alpha=0.8),
    )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _plot(axes: Axes, waveform: Tensor, sample_rate: int) -> None:
    """A waveform; of a long one what lies between its least and largest values, column by column."""
    size = len(waveform) // WIDTH
    if size < 10:
        axes.plot(np.arange(len(waveform)) / sample_rate, waveform.numpy(), linewidth=0.5)
        return
    columns = waveform[: len(waveform) // size * size].view(-1, size)
    seconds = np.arange(len(columns)) * size / sample_rate
    axes.fill_between(seconds, columns.amin(1).numpy(), columns.amax(1).numpy(), linewidth=0.5)


def _narrowed(values: Tensor) -> Tensor:
    """(F, T), of many frames their means in about `WIDTH` columns."""
    size = max(1, values.shape[1] // WIDTH)
    return F.avg_pool1d(values[None], size, ceil_mode=True)[0]


def _legible(parts: Sequence[tuple[float, str]], seconds: float) -> list[tuple[float, str]]:
    """The parts that stand far enough behind the one before to be named."""
    kept: list[tuple[float, str]] = []
    for start, name in parts:
        if not kept or start - kept[-1][0] >= seconds / MOST_PARTS:
            kept.append((start, name))
    return kept
