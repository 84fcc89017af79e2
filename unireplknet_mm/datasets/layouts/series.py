"""Time series: one CSV file with a date column and a column a variable."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from unireplknet_mm.configuration import innermost_datasets
from unireplknet_mm.datasets.layouts.base import MANIFEST, SPLITS, Progress
from unireplknet_mm.datasets.layouts.windows import HELP_OF_WINDOWS, WindowLayout

FILE = 'series.csv'
START = datetime(2020, 1, 1)
HOURS_OF_PERIODS = (24, 168)  # a day and a week


class SeriesLayout(WindowLayout):
    """A sample is a window: `look_back` rows and the `horizon` rows that follow.

    The demo data are one file of hourly rows, just as many as the windows need: daily and weekly cycles of
    each variable's own strength and phase, a slow drift, noise in which each hour remembers the last. The
    test data are those of validation.
    """

    name = 'series'
    dataset_types = ('SeriesDataset',)
    files = ('NAME.csv',)
    defaults = dict(seed=0, variables=7, look_back=96, horizon=96)
    numbers = (
        dict(seed='of the random numbers', variables='columns besides the dates') | HELP_OF_WINDOWS
    )

    def where_to_get(self, root: str) -> list[str]:
        return [
            'ETTh1, ETTh2, ETTm1 and ETTm2 are at https://github.com/zhouhaoyi/ETDataset; Weather, '
            'Electricity, Traffic, Exchange and ILI as CSV files in the collection of '
            f'https://github.com/thuml/Autoformer; expected are {root}/NAME.csv',
            f'A copy elsewhere can be linked: ln -s /path/to/it {root}',
        ]

    def write_demo(self, root: Path, parameters: dict[str, Any], progress: Progress) -> dict:
        horizon = parameters['horizon']
        rows = dict(
            train=parameters['look_back'] + horizon + parameters['images'] - 1,
            val=horizon + parameters['val_images'] - 1,
        )
        values = synthesise(sum(rows.values()), parameters['variables'], parameters['seed'])
        names = [f'v{i + 1}' for i in range(parameters['variables'])]
        lines = [','.join(['date', *names])]
        for hour in progress(list(range(len(values)))):
            date = (START + timedelta(hours=hour)).isoformat(sep=' ')
            lines.append(','.join([date, *(f'{value:.4f}' for value in values[hour])]))
        (root / FILE).write_text('\n'.join(lines) + '\n', encoding='utf-8')
        return {split: dict(rows=rows[split]) for split in SPLITS}

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        variables = (model or {}).get('variables', self.defaults['variables'])
        return dict(variables=variables, **self.window_of(datasets))

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(ann_file=FILE, part=split, columns=None, date_column='date', frequency='h')

    def point_config(self, cfg: Config, root: Path) -> list[str]:
        manifest = json.loads((root / MANIFEST).read_text(encoding='utf-8'))
        rows = [manifest['sources'][split]['rows'] for split in SPLITS]
        for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            for dataset in innermost_datasets(cfg[key]['dataset']) if cfg.get(key) else ():
                dataset['parts'] = (*rows, 0)
        return []


def synthesise(rows: int, variables: int, seed: int) -> np.ndarray:
    """Hourly values (rows, variables); the rows of a longer series begin with those of a shorter one."""
    values = np.empty((rows, variables))
    hours = np.arange(rows)
    for i in range(variables):
        rng = np.random.default_rng([seed, i])
        level, drift = rng.normal(0, 5), rng.normal(0, 0.002)
        strengths = rng.uniform(0.5, 2, len(HOURS_OF_PERIODS))
        phases = rng.uniform(0, 2 * np.pi, len(HOURS_OF_PERIODS))
        cycles = sum(
            strength * np.sin(2 * np.pi * hours / period + phase)
            for strength, period, phase in zip(strengths, HOURS_OF_PERIODS, phases, strict=True)
        )
        noise = np.empty(rows)
        last = 0.0
        for hour, shock in enumerate(rng.normal(0, 0.3, rows)):
            last = 0.8 * last + shock
            noise[hour] = last
        values[:, i] = level + drift * hours + cycles + noise
    return values


LAYOUT = SeriesLayout()
