"""The picture of a recording: waveform, spectrogram as the network sees it, and what was predicted."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from unireplknet_mm.modalities.audio.filterbank import STEP_SECONDS


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
        parts: where each part begins that was predicted for itself, in seconds, and what it is.
    """
    figure = Figure(figsize=(9, 5), dpi=100, layout='constrained')
    canvas = FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, height_ratios=(1, 2))
    upper.plot(np.arange(len(waveform)) / sample_rate, waveform.numpy(), linewidth=0.5)
    upper.set_xlim(0, len(waveform) / sample_rate)
    upper.set_ylabel('amplitude')
    upper.set_title(title, parse_math=False)
    frames, bins = spectrogram.shape
    first = parts[0][0] if parts else 0.0
    image = lower.imshow(
        spectrogram.float().numpy().T,
        origin='lower',
        aspect='auto',
        extent=(first, first + frames * STEP_SECONDS, 0, bins),
    )
    lower.set(xlabel='seconds', ylabel='mel bin')
    for start, name in parts:
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
