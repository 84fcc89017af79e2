"""What a config of audio should know of its data: the normalisation, and how fast they load.

    python tools/audio_data.py statistics configs/audio/unireplknet_s_speech_commands.py
    python tools/audio_data.py speed configs/audio/unireplknet_s_speech_commands.py --workers 2

`statistics` measures mean and standard deviation of the log-mel values of the training recordings, the
numbers that `LogMel` takes. `speed` reads the training data as a training does, augmentation and all, and
tells how many seconds of sound a second that gives; with --workers 0 the CPU time too.
"""

import argparse
import sys
from collections.abc import Sequence

from common_options import add_cfg_options, positive
from mmengine.config import Config
from mmengine.registry import init_default_scope

from unireplknet_mm.launch import (
    check_complete,
    check_data,
    exit_on_user_error,
    explain_mistakes,
    load_config,
    use_demo_data,
)


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    statistics = commands.add_parser('statistics', help='mean and standard deviation')
    statistics.add_argument(
        '--most', type=positive, metavar='N', help='recordings to read (default: all)'
    )
    speed = commands.add_parser('speed', help='seconds of sound a second')
    speed.add_argument('--batches', type=positive, default=20, metavar='N', help='timed (20)')
    speed.add_argument(
        '--workers', type=int, metavar='N', help="processes that load (default: the config's)"
    )
    for command in (statistics, speed):
        command.add_argument('config', help='a config file')
        command.add_argument('--demo-data', action='store_true', help='take generated recordings')
        add_cfg_options(command)
    return parser.parse_args(arguments)


def show(text: str) -> None:
    if sys.stderr.isatty():
        print(f'\r\033[K{text}', end='', file=sys.stderr, flush=True)


def print_statistics(cfg: Config, args: argparse.Namespace) -> None:
    from unireplknet_mm.modalities.audio.statistics import measure_statistics

    found = measure_statistics(cfg, args.most, show)
    show('')
    left_out = f'; {found.unusable:,} that cannot be used left out' if found.unusable else ''
    print(f'{found.recordings:,} recordings, {found.seconds:,.0f} s of sound{left_out}')
    print(f"dict(type='LogMel', mean={found.mean:.4f}, std={found.std:.4f})")


def print_speed(cfg: Config, args: argparse.Namespace) -> None:
    from mmengine.runner import Runner

    from unireplknet_mm.modalities.audio.statistics import measure_speed

    loader = cfg.train_dataloader
    if args.workers is not None:
        loader.num_workers = args.workers
        loader.persistent_workers = args.workers > 0
    found = measure_speed(Runner.build_dataloader(loader, seed=0), args.batches, show)
    show('')
    print(
        f'{found.audio_seconds / found.seconds:,.0f} s of sound a second, '
        f'{found.recordings / found.seconds:,.0f} recordings a second: {found.batches} batches of '
        f'{loader.batch_size} in {found.seconds:.1f} s, {loader.num_workers} workers'
        + (f', {found.cpu_seconds:.1f} s of CPU time' if not loader.num_workers else '')
    )


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    cfg = load_config(args.config, args.cfg_options)
    check_complete(cfg, 'train')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if args.demo_data:
        use_demo_data(cfg)
    check_data(cfg, 'train')
    with explain_mistakes(cfg):
        dict(statistics=print_statistics, speed=print_speed)[args.command](cfg, args)


if __name__ == '__main__':
    main()
