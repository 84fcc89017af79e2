"""Time series (§3.3, Eq. 2; §4.2): CSV files, maps for the untouched backbone, forecasts, peers.

Importing it registers everything; it needs pandas, the extra `[time_series]`.
"""

from unireplknet_mm.modalities.time_series.base import SeriesModel, SeriesPreprocessor
from unireplknet_mm.modalities.time_series.dataset import PackWindow, SeriesDataset, WindowSample
from unireplknet_mm.modalities.time_series.embedding import SeriesMap
from unireplknet_mm.modalities.time_series.forecaster import Forecaster
from unireplknet_mm.modalities.time_series.metric import ForecastError
from unireplknet_mm.modalities.time_series.peers import (
    DLinear,
    NLinear,
    PatchTST,
    SeasonalNaive,
)
from unireplknet_mm.modalities.time_series.same_window import SameWindowHook
from unireplknet_mm.modalities.time_series.series import (
    Series,
    SeriesError,
    calendar_features,
    read_series,
)
from unireplknet_mm.modalities.time_series.stations import StationDataset, StationPlacesHook
from unireplknet_mm.modalities.time_series.visualization import ForecastVisualizationHook
from unireplknet_mm.modalities.time_series.weather import WeatherForecaster

__all__ = [
    'DLinear',
    'ForecastError',
    'ForecastVisualizationHook',
    'Forecaster',
    'NLinear',
    'PackWindow',
    'PatchTST',
    'SameWindowHook',
    'SeasonalNaive',
    'Series',
    'SeriesDataset',
    'SeriesError',
    'SeriesMap',
    'SeriesModel',
    'SeriesPreprocessor',
    'StationDataset',
    'StationPlacesHook',
    'WeatherForecaster',
    'WindowSample',
    'calendar_features',
    'read_series',
]
