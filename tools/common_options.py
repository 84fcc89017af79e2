"""The command-line options that tools share, and how they end. Imports nothing that imports torch."""

import argparse
import os
import signal
import sys

INTERRUPTED = 130  # the exit status after Ctrl-C

# Where a launcher other than torchrun puts the number of a process on its machine.
LOCAL_RANK_OF_LAUNCHER = dict(slurm='SLURM_LOCALID', mpi='OMPI_COMM_WORLD_LOCAL_RANK')


def positive(text: str) -> int:
    """An option's whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not positive')
    return number


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='settings that override the config, for instance train_dataloader.batch_size=4; '
        'lists as KEY="[a,b]" without white space',
    )


def add_checkpoint(parser: argparse.ArgumentParser, whose: str = 'checkpoint') -> None:
    """What may be named is `load_checkpoint`'s."""
    parser.add_argument(
        'checkpoint', help=f'{whose}: a file, a URL, hf://OWNER/NAME/FILE or a name'
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: work_dirs/NAME_OF_THE_CONFIG)'
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--demo-data',
        action='store_true',
        help='run on a few generated images in the layout of the data set (written to data/demo)',
    )
    parser.add_argument(
        '--device',
        choices=['auto', 'cpu', 'cuda'],
        default='auto',
        help='auto (default): the GPU, if there is one',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run; dist_*.sh and slurm_*.sh set it',
    )
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def apply_to_environment(args: argparse.Namespace) -> None:
    """Set the variables that torch and MMEngine read when they are imported."""
    variable = LOCAL_RANK_OF_LAUNCHER.get(args.launcher, 'LOCAL_RANK')
    os.environ['LOCAL_RANK'] = os.environ.get(variable, str(args.local_rank))
    if args.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''


def clean_up_when_terminated() -> None:
    """Let SIGTERM end this process by an exception, so that what it has begun to write is removed.

    Processes that are forked from it end at once: a worker of a pool that caught the exception would keep the
    pool waiting for it.
    """
    owner, status = os.getpid(), 128 + signal.SIGTERM
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(status) if os.getpid() == owner else os._exit(status)
    )
