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


def draw_stations(
    past: np.ndarray,
    forecast: np.ndarray,
    truth: np.ndarray,
    places: np.ndarray,
    title: str = '',
) -> Figure:
    """Maps of the last row that is forecast, of what came and of the error; curves of four stations.

    The stations of the curves are spread from north to south.

    Args:
        past: (L, D).
        forecast, truth: (H, D).
        places: (D, 3) or (D, 2), latitude and longitude in degrees first.
    """
    figure = Figure(figsize=(14, 6.4), layout='constrained')
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, height_ratios=(1.1, 1))
    error = forecast[-1] - truth[-1]
    limits = dict(
        vmin=min(forecast[-1].min(), truth[-1].min()), vmax=max(forecast[-1].max(), truth[-1].max())
    )
    largest = max(np.abs(error).max(), 1e-6)
    maps = (
        ('forecast', forecast[-1], dict(limits, cmap='viridis')),
        ('truth', truth[-1], dict(limits, cmap='viridis')),
        ('forecast less truth', error, dict(vmin=-largest, vmax=largest, cmap='RdBu_r')),
    )
    by_latitude = np.argsort(-places[:, 0], kind='stable')
    chosen = by_latitude[np.linspace(0, len(places) - 1, 6).round().astype(int)[1:-1]]
    size = float(np.clip(12000 / len(places), 4, 120))
    for axis, (name, values, style) in zip(above.subplots(1, 3), maps, strict=True):
        points = axis.scatter(places[:, 1], places[:, 0], c=values, s=size, linewidths=0, **style)
        axis.scatter(
            places[chosen, 1],
            places[chosen, 0],
            s=1.6 * size,
            facecolors='none',
            edgecolors=COLORS['past'],
        )
        axis.set(xlim=(-180, 180), ylim=(-90, 90), title=f'{name}, {len(forecast)} rows ahead')
        above.colorbar(points, ax=axis, shrink=0.8)
    before, after = np.arange(-len(past), 0), np.arange(len(forecast))
    for axis, i in zip(below.subplots(1, len(chosen), sharex=True), chosen, strict=True):
        axis.plot(before, past[:, i], color=COLORS['past'], linewidth=1, label='past')
        axis.plot(after, truth[:, i], color=COLORS['truth'], linewidth=1, label='truth')
        axis.plot(after, forecast[:, i], color=COLORS['forecast'], linewidth=1.4, label='forecast')
        axis.axvline(0, color='#999999', linewidth=0.6)
        axis.set_title(
            f'station {i + 1}: {places[i, 0]:.0f}°, {places[i, 1]:.0f}°', fontsize='medium'
        )
        axis.margins(x=0)
    below.axes[0].legend(loc='best', fontsize='small', framealpha=0.7)
    figure.suptitle(title)
    return figure


def to_image(figure: Figure) -> np.ndarray:
    """A figure as (height, width, 3) numbers of 0 to 255."""
    canvas = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
