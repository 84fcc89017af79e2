"""Weather stations: arrays of hourly values, dates and places, as Corrformer's global data are published."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unireplknet_mm.datasets.globe import (
    QUANTITIES,
    order_by_tree,
    places_on_a_sphere,
    synthesise_weather,
)
from unireplknet_mm.datasets.layouts.base import SPLITS, Progress
from unireplknet_mm.datasets.layouts.windows import HELP_OF_WINDOWS, WindowLayout
from unireplknet_mm.errors import ArgumentError

START = np.datetime64('2019-01-01T00', 'h')
TENTHS = 10  # the published values are tenths of a unit
PLACES_FILE = 'stations_sorted.npy'
HOURS_BETWEEN_PARTS = 24 * 7


class StationLayout(WindowLayout):
    """A sample is a window: `look_back` rows and the `horizon` rows that follow.

    The demo data are a synthetic globe (`datasets/globe.py`): stations on a sphere, ordered by the nodes of a
    tree, a daily cycle, waves that travel around it; the temperature or the wind, in tenths. Each part has
    just as many hours as its windows need, a week behind the part before; that for the test has as many as
    that for validation.
    """

    name = 'stations'
    dataset_types = ('StationDataset',)
    files = (
        '{temp,wind}_global_hourly_{train,val,test}.npy',
        'data_time_{train,val,test}.npy',
        PLACES_FILE,
    )
    defaults = dict(
        seed=0, stations=96, tree=[4, 6], look_back=48, horizon=24, quantity=QUANTITIES[0]
    )
    numbers = dict(seed='of the random numbers', stations='number of stations') | HELP_OF_WINDOWS

    def where_to_get(self, root: str) -> list[str]:
        return [
            'Global Temp and Global Wind of Corrformer are at https://github.com/thuml/Corrformer; expected '
            f'are {" and ".join(f"{root}/{file}" for file in self.files)}',
            f'A copy elsewhere can be linked: ln -s /path/to/it {root}',
        ]

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        super().add_options(parser)
        parser.add_argument(
            '--tree',
            type=int,
            nargs='+',
            metavar='N',
            help='how often each level of the tree of nodes branches (default: 4 6)',
        )
        parser.add_argument('--quantity', choices=QUANTITIES, help='default: temp')

    def check(self, parameters: dict[str, Any]) -> None:
        super().check(parameters)
        tree = parameters['tree']
        if min(tree) < 1 or parameters['stations'] % math.prod(tree):
            raise ArgumentError(
                f'{parameters["stations"]} stations cannot be split into the nodes of tree={tree}'
            )
        if parameters['quantity'] not in QUANTITIES:
            raise ArgumentError(
                f'quantity must be {" or ".join(QUANTITIES)}, not {parameters["quantity"]!r}'
            )

    def write_demo(self, root: Path, parameters: dict[str, Any], progress: Progress) -> dict:
        places = places_on_a_sphere(parameters['stations'])
        places = places[order_by_tree(places, parameters['tree'])]
        np.save(root / PLACES_FILE, places)
        window = parameters['look_back'] + parameters['horizon']
        windows = dict(
            train=parameters['images'], val=parameters['val_images'], test=parameters['val_images']
        )
        rows = {part: window + number - 1 for part, number in windows.items()}
        quantity, begin = parameters['quantity'], 0
        for part in progress(list(rows)):
            hours = np.arange(begin, begin + rows[part])
            values = synthesise_weather(places, hours, quantity, parameters['seed'])
            tenths = np.round(TENTHS * values)[:, :, None].astype(np.float32)
            np.save(root / f'{quantity}_global_hourly_{part}.npy', tenths)
            np.save(root / f'data_time_{part}.npy', START + hours)
            begin += rows[part] + HOURS_BETWEEN_PARTS
        return {split: dict(rows=rows[split]) for split in SPLITS}

    def parameters_for(self, model: Any, datasets: Sequence[dict]) -> dict[str, Any]:
        found: dict[str, Any] = self.window_of(datasets)
        is_wind = QUANTITIES[1] in Path(datasets[0]['ann_file']).name
        found['quantity'] = QUANTITIES[is_wind]
        if (model or {}).get('variables'):
            found['stations'] = model['variables']
            found['tree'] = list(model.get('tree', [1]))
        return found

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(
            ann_file=f'{parameters["quantity"]}_global_hourly_{split}.npy',
            dates_file=f'data_time_{split}.npy',
            places_file=PLACES_FILE,
            unit=1 / TENTHS,
        )


LAYOUT = StationLayout()
