"""Pictures of forecasts: what was, what is forecast, what came, and how far off it may be."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLORS = dict(past='#4c566a', forecast='#d08700', truth='#2f6f9f')
MAX_PANELS = 8


def draw_forecast(
    past: np.ndarray,
    forecast: np.ndarray,
    truth: np.ndarray | None = None,
    band: tuple[np.ndarray, np.ndarray] | None = None,
    columns: Sequence[str] = (),
    past_dates: Sequence | None = None,
    future_dates: Sequence | None = None,
    title: str = '',
    band_label: str = '',
) -> Figure:
    """A panel a variable, eight at most.

    Args:
        past: (L, D).
        forecast: (H, D).
        truth: (H, D), as far as it is known; NaN where it is not.
        band: the lower and the upper edge, (H, D) each.
        columns: the names of the variables.
        past_dates, future_dates: L and H dates; without, rows are counted from the start of the forecast.
    """
    panels = min(past.shape[1], MAX_PANELS)
    before = np.arange(-len(past), 0) if past_dates is None else np.asarray(past_dates)
    after = np.arange(len(forecast)) if future_dates is None else np.asarray(future_dates)
    figure = Figure(figsize=(10, 0.6 + 1.7 * panels), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    for i, axis in enumerate(axes):
        axis.plot(before, past[:, i], color=COLORS['past'], linewidth=1, label='past')
        if band is not None:
            axis.fill_between(
                after,
                band[0][:, i],
                band[1][:, i],
                color=COLORS['forecast'],
                alpha=0.25,
                linewidth=0,
                label=band_label,
            )
        if truth is not None:
            axis.plot(after, truth[:, i], color=COLORS['truth'], linewidth=1, label='truth')
        axis.plot(after, forecast[:, i], color=COLORS['forecast'], linewidth=1.4, label='forecast')
        axis.axvline(after[0], color='#999999', linewidth=0.6)
        axis.set_ylabel(columns[i] if i < len(columns) else f'variable {i + 1}')
        axis.margins(x=0)
    axes[0].legend(loc='upper left', ncols=4, fontsize='small', framealpha=0.7)
    hidden = past.shape[1] - panels
    figure.suptitle(title + (f' ({hidden} more variables not shown)' if hidden else ''))
    return figure


def to_image(figure: Figure) -> np.ndarray:
    """A figure as (height, width, 3) numbers of 0 to 255."""
    canvas = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
