"""Train the small weather model on a synthetic globe, beside persistence and a seasonal-naive forecast.

    python scripts/compare_on_globe.py --out work_dirs/globe

All are tested on the same windows; MSE and MAE are in the unit of the quantity. The folder gets the data, a
line of JSON a model and a picture of the first window of the test: maps and curves. docs/time_series.md has
the table.
"""

import argparse
import json
import logging
import shutil
import tempfile
from pathlib import Path

from compare_forecasters import CONFIGS, PARTS, run
from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger

from unireplknet_mm import launch
from unireplknet_mm.datasets import make_demo_data

NAIVE = {'persistence': 1, 'seasonal naive': 24}  # the season, in hours


def load(data: Path, quantity: str, options: dict) -> Config:
    """The config on these data, with a picture of the first window of the test."""
    cfg = launch.load_config(CONFIGS / 'unireplknet_globe_48_24.py')
    for part in PARTS:
        name = f'{quantity}_global_hourly_{part}.npy'
        cfg[f'{part}_dataloader'].dataset.update(data_root=f'{data}/', ann_file=name)
    cfg.merge_from_dict(options)
    cfg.default_hooks.visualization.update(draw=True, interval=1_000_000)
    return cfg


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--quantity', choices=['temp', 'wind'], default='temp')
    parser.add_argument('--windows', type=int, default=200, help='for training')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--set', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/globe'))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)
    model = load(args.out, args.quantity, args.set).model
    data = make_demo_data(
        'stations',
        args.out / f'{args.quantity} {args.windows}',
        args.windows,
        args.windows // 4,
        stations=model.variables,
        tree=list(model.tree),
        quantity=args.quantity,
    )
    for name in (*NAIVE, 'unireplknet'):
        cfg = load(data, args.quantity, args.set)
        cfg.randomness = dict(seed=args.seed)
        if name in NAIVE:
            window = {key: cfg.model[key] for key in ('look_back', 'horizon', 'variables')}
            cfg.model = dict(type='SeasonalNaive', season=NAIVE[name], **window)
            cfg.custom_hooks = []
        MMLogger._instance_dict.clear()
        with tempfile.TemporaryDirectory() as folder:
            result = run(cfg, folder, name not in NAIVE)
            (picture,) = Path(folder).rglob('forecast_*.png')
            shutil.copy(picture, args.out / f'{args.quantity} {name}.png')
        result = dict(model=name, quantity=args.quantity, seed=args.seed) | result
        with (args.out / 'results.jsonl').open('a', encoding='utf-8') as out:
            out.write(json.dumps(result) + '\n')
        print(json.dumps(result), flush=True)


if __name__ == '__main__':
    launch.exit_on_user_error(main)()
