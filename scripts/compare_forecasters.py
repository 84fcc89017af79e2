"""Train forecasters beside each other on one series: the tables in docs/time_series.md.

    python scripts/compare_forecasters.py ETTh1.csv --models unireplknet dlinear --horizons 96 720

Each model is trained as its config in configs/time_series says, that of the look-back if there is one, but
for the window, the file, --epochs and --set; its checkpoint is chosen on the validation part, whatever the
test says, and tested once. The seasonal naive forecast is tested without training. With --bands a result also
says what share of the errors on the test part lies within the band of that share of those on the validation
part, which tools/forecast.py draws. Every result is a line of JSON in --out at once, so that a later call
goes on.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from unireplknet_mm import launch
from unireplknet_mm.modalities.time_series.forecasting import (
    error_band,
    forecast_errors,
    share_within,
)

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'time_series'
PARTS = ('train', 'val', 'test')


def load(name: str, file: Path, look_back: int, horizon: int, season: int) -> Config:
    """The config of a model on another window and file."""
    stem = 'dlinear' if name == 'seasonal_naive' else name
    path = CONFIGS / f'{stem}_etth1_{look_back}_96.py'
    cfg = launch.load_config(path if path.exists() else CONFIGS / f'{stem}_etth1_96_96.py')
    window = dict(look_back=look_back, horizon=horizon)
    for part in PARTS:
        loader = cfg[f'{part}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(window, ann_file=file.name, data_root=str(file.parent))
    cfg.model.update(window)
    cfg.input_shape = (look_back, cfg.model.variables)
    if name == 'seasonal_naive':
        cfg.model = dict(
            type='SeasonalNaive', season=season, variables=cfg.model.variables, **window
        )
    return cfg


def run(
    cfg: Config, folder: str, needs_training: bool, bands: Sequence[float] = ()
) -> dict[str, float]:
    """Train, choose, test; the scores of the choice and of the test, and the CPU time of the training.

    Of each of `bands` also the share of the errors of the test that lies within it.
    """
    cfg.work_dir = folder
    cfg.experiment_name = Path(folder).name
    cfg.log_level = 'ERROR'
    started = time.process_time()
    validation, epoch = None, None
    if needs_training:
        launch.make_resumable(cfg)
        launch.watch_losses(cfg)
        runner = launch.train(cfg)
        validation = runner.message_hub.get_info('best_score')
        (best,) = Path(folder).glob('best_*.pth')
        epoch = int(best.stem.rpartition('_')[2])
        cfg.load_from = str(best)
    seconds = time.process_time() - started
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg.pop(key)
    known = cfg.pop('val_dataloader').dataset
    for key in ('val_cfg', 'val_evaluator'):
        cfg.pop(key)
    cfg.experiment_name += ' test'
    runner = Runner.from_cfg(cfg)
    scores = runner.test()
    result = dict(
        validation_mse=validation,
        best_epoch=epoch,
        mse=scores['forecast/mse'],
        mae=scores['forecast/mae'],
        seconds=round(seconds),
    )
    if bands:
        errors = forecast_errors(runner.model, DATASETS.build(known))
        came = forecast_errors(runner.model, runner.test_dataloader.dataset)
        for share in bands:
            within = share_within(came, error_band(errors, share))
            result[f'within_{share:g}'] = round(float(within.mean()), 4)
            # The first row ahead and the last, and each variable by itself.
            result[f'within_{share:g}_rows'] = within.mean(axis=1)[[0, -1]].round(4).tolist()
            result[f'within_{share:g}_variables'] = within.mean(axis=0).round(4).tolist()
    return result


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'file', type=Path, help='a CSV file of the ETT family, 7 variables by the hour'
    )
    parser.add_argument(
        '--models',
        nargs='+',
        default=['seasonal_naive', 'dlinear', 'nlinear', 'patchtst', 'unireplknet'],
        help='seasonal_naive, or what the names of configs begin with',
    )
    parser.add_argument('--look-backs', type=int, nargs='+', default=[96, 336])
    parser.add_argument('--horizons', type=int, nargs='+', default=[96, 192, 336, 720])
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--epochs', type=int, help='default: as in the config')
    parser.add_argument('--season', type=int, default=24, help='of the seasonal naive forecast')
    parser.add_argument(
        '--bands', type=float, nargs='+', default=[], metavar='SHARE', help='such as 0.8 0.9'
    )
    parser.add_argument('--set', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE')
    parser.add_argument('--label', default='', help='what --set stands for, in the results')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/forecasters.jsonl'))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = args.out.read_text(encoding='utf-8').splitlines() if args.out.exists() else []
    keys = ('model', 'label', 'look_back', 'horizon', 'seed', 'epochs')
    known = {tuple(json.loads(line)[key] for key in keys) for line in lines}
    tasks = [
        (horizon, look_back, name, seed)
        for horizon in args.horizons
        for look_back in args.look_backs
        for seed in args.seeds
        for name in args.models
    ]
    for horizon, look_back, name, seed in tasks:
        values = (name, args.label, look_back, horizon, seed, args.epochs)
        if values in known:
            continue
        cfg = load(name, args.file.resolve(), look_back, horizon, args.season)
        if name != 'seasonal_naive':
            cfg.merge_from_dict(args.set)
        if args.epochs:
            cfg.train_cfg.max_epochs = args.epochs
        cfg.randomness = dict(seed=seed)
        MMLogger._instance_dict.clear()
        with tempfile.TemporaryDirectory() as folder:
            result = run(cfg, folder, name != 'seasonal_naive', args.bands)
        result = dict(zip(keys, values, strict=True)) | result
        with args.out.open('a', encoding='utf-8') as out:
            out.write(json.dumps(result) + '\n')
        print(json.dumps(result), flush=True)


if __name__ == '__main__':
    launch.exit_on_user_error(main)()
