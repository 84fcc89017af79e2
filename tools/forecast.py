"""Forecast a CSV file with a trained model: a table and a picture.

python tools/forecast.py CONFIG CHECKPOINT --csv FILE.csv
python tools/forecast.py CONFIG CHECKPOINT --start "2018-02-01 00:00" --out DIR

Without --start the forecast begins behind the last row of the file; with it, at that date, and the picture
shows what came as well. The band is that of the errors which the model made on the validation windows of the
config: a share --coverage of them lay within it, each step ahead and each variable by itself.
"""

import argparse
from pathlib import Path

from common_options import add_cfg_options, add_checkpoint, apply_to_environment


def share(text: str) -> float:
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 1')
    return number


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    add_checkpoint(parser)
    parser.add_argument(
        '--csv', metavar='FILE', help="file to forecast (default: that of the config's test data)"
    )
    parser.add_argument('--start', metavar='DATE', help='first date to forecast')
    parser.add_argument(
        '--coverage',
        type=share,
        default=0.8,
        metavar='SHARE',
        help='of the errors on validation windows that lie within the band (default: 0.8)',
    )
    parser.add_argument(
        '--no-band', action='store_true', help='none; the validation data are not needed then'
    )
    parser.add_argument(
        '--out', default='forecast', metavar='DIR', help='folder of forecast.csv and forecast.png'
    )
    parser.add_argument(
        '--deploy',
        action='store_true',
        help='re-parameterize the model first; a checkpoint of reparameterize.py needs no option',
    )
    parser.add_argument(
        '--device',
        choices=['auto', 'cpu', 'cuda'],
        default='auto',
        help='auto (default): the GPU, if there is one',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def forecast(args: argparse.Namespace) -> None:
    from mmengine.registry import DATASETS

    from unireplknet_mm import launch
    from unireplknet_mm.files import check_replaceable, replacing
    from unireplknet_mm.launch import predicting
    from unireplknet_mm.modalities.time_series import SeriesModel, StationDataset, read_series
    from unireplknet_mm.modalities.time_series.drawing import draw_forecast
    from unireplknet_mm.modalities.time_series.forecasting import (
        error_band,
        forecast_errors,
        forecast_series,
        standardisation_of,
    )

    cfg = launch.load_config(args.config, args.cfg_options)
    launch.check_complete(cfg, 'test')
    dataset = cfg.test_dataloader.dataset
    if dataset.type in ('StationDataset', StationDataset):
        raise launch.UserError(
            f'{args.config} forecasts weather stations, whose files are no CSV.\n'
            'Their forecasts are drawn by '
            f'python tools/test.py {args.config} {args.checkpoint} --show-dir DIR'
        )
    launch.check_checkpoint(args.checkpoint)
    launch.prepare_device(cfg, 'none', args.device)
    table, picture = (Path(args.out) / name for name in ('forecast.csv', 'forecast.png'))
    for path in (table, picture):
        check_replaceable(path)
    if not args.csv:
        launch.check_data(cfg, 'test')
    if not args.no_band:
        launch.check_data(cfg, 'val')
    launch.check_content(cfg, args.checkpoint)
    model, meta = predicting.load_model(cfg, args.checkpoint, args.deploy)
    if not isinstance(model, SeriesModel):
        raise launch.UserError(
            f'{args.config} has a {type(model).__name__}, which forecasts no series.'
        )
    stated = standardisation_of(meta, args.checkpoint)
    path = args.csv or Path(dataset.get('data_root') or '') / dataset.ann_file
    settings = {
        key: dataset[key]
        for key in ('date_column', 'frequency', 'missing', 'date_format')
        if key in dataset
    }
    series = read_series(path, columns=list(stated['columns']), **settings)
    result = forecast_series(model, series, stated, args.start)
    if not args.no_band:
        errors = forecast_errors(model, DATASETS.build(cfg.val_dataloader.dataset))
        result = result.with_band(error_band(errors, args.coverage), stated['deviation'])
    launch.create_folder(args.out, '--out')
    with replacing(table, keep_extension=True) as partial:
        result.table().to_csv(partial)
    label = f'{100 * args.coverage:g}% of the validation errors'
    figure = draw_forecast(
        result.past,
        result.values,
        result.truth,
        result.band,
        result.columns,
        result.past_dates,
        result.dates,
        title=f'{Path(path).name}: {len(result.dates)} rows from {result.dates[0]}',
        band_label=label,
    )
    with replacing(picture, keep_extension=True) as partial:
        figure.savefig(partial, dpi=120)
    band = 'no band' if args.no_band else f'a band of {label}'
    print(
        f'Forecast of {len(result.dates)} rows from {result.dates[0]} to {result.dates[-1]}, with {band}: '
        f'{table} and {picture}'
    )


def main() -> None:
    args = parse_args()
    apply_to_environment(argparse.Namespace(device=args.device, launcher='none', local_rank=0))
    from unireplknet_mm.launch import exit_on_user_error

    exit_on_user_error(forecast)(args)


if __name__ == '__main__':
    main()
