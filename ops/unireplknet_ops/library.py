"""Finds and loads the compiled operators.

Two shared libraries lie in `lib/` beside this file, or in the directory that
`UNIREPLKNET_OPS_LIB_DIR` names: the operators' schemas with the CPU kernels, and the CUDA kernels,
which add to them. Without the first nothing is registered, and `depthwise_conv2d` runs on
`F.conv2d`; a CUDA library that does not load leaves the CPU kernels usable.
"""

import logging
import os
from pathlib import Path

import torch

from unireplknet_ops.torch_internals import constant_in_graphs, has_kernels

DIRECTORY_VARIABLE = 'UNIREPLKNET_OPS_LIB_DIR'
FILE_NAMES = {'cpu': 'libunireplknet_ops.so', 'cuda': 'libunireplknet_ops_cuda.so'}
BUILD_COMMAND = 'python -m unireplknet_ops.build'
OPERATORS = (
    'depthwise_conv2d',
    'depthwise_conv2d_backward_input',
    'depthwise_conv2d_backward_weight',
    'feed_forward',
    'squeeze_excitation',
    'gelu_grn',
    'gelu_grn_backward',
    'dilated_reparam',
    'dilated_reparam_backward',
    'cpu_isa',
)

# Of the whole package. It has no handler: without logging set up, Python prints warnings and no more.
logger = logging.getLogger('unireplknet_ops')

# Device type -> why its kernels cannot run. A device type that is absent has them.
_problems: dict[str, str] = dict.fromkeys(FILE_NAMES, 'the library was not looked for')
_reported: set[str] = set()


def directory() -> Path:
    """Where the libraries are looked for."""
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    return Path(chosen) if chosen else Path(__file__).resolve().parent / 'lib'


def load() -> None:
    """Load what there is; `missing` tells about the rest. Never raises for a bad library."""
    for device_type in FILE_NAMES:  # the CPU library defines the operators, so it comes first
        problem = _load_library(device_type)
        if problem is None:
            _problems.pop(device_type, None)
        else:
            _problems[device_type] = problem


def is_available(device_type: str) -> bool:
    """Whether the operators have kernels for tensors on this type of device ('cpu', 'cuda')."""
    return missing(device_type) is None


def missing(device_type: str) -> str | None:
    """Why the operators cannot run on this type of device, None if they can."""
    if device_type not in FILE_NAMES:
        return f'there are no kernels for {device_type} tensors, only for cpu and cuda'
    return _problems.get(device_type)


@constant_in_graphs  # so that torch.compile runs it while it traces
def report_missing(device_type: str) -> None:
    """Log, once a process and device type, that its depthwise convolutions run on `F.conv2d`."""
    if device_type in FILE_NAMES and device_type in _problems and device_type not in _reported:
        _reported.add(device_type)
        logger.warning(
            'Depthwise convolutions on %s run on F.conv2d: %s.', device_type, _problems[device_type]
        )


def _load_library(device_type: str) -> str | None:
    """Load one library; return what is wrong with it, None if nothing."""
    path = directory() / FILE_NAMES[device_type]
    if device_type == 'cuda':
        if 'cpu' in _problems:
            return _problems['cpu']
        if not torch.version.cuda:
            return f'this torch ({torch.__version__}) has no CUDA'
    try:
        if not _is_loaded(device_type):
            if not path.is_file():
                reason = path.with_name('not_built.txt')  # of an installation that lacked something
                why = f', {reason.read_text(encoding="utf-8").strip()}' if reason.is_file() else ''
                return f'{path} does not exist{why} (built by: {BUILD_COMMAND})'
            torch.ops.load_library(str(path))
        absent = [name for name in OPERATORS if not hasattr(torch.ops.unireplknet, name)]
    except (OSError, RuntimeError) as error:
        return f'{path} does not load: {error.__cause__ or error} (rebuilt by: {BUILD_COMMAND})'
    if absent:
        return f'{path} is of another version, without {", ".join(absent)} (rebuilt by: {BUILD_COMMAND})'
    return None


def _is_loaded(device_type: str) -> bool:
    """Whether somebody has loaded a copy already: a second definition would end the process."""
    name = OPERATORS[0]
    if not hasattr(torch.ops.unireplknet, name):
        return False
    return device_type == 'cpu' or has_kernels(  # the CPU library defines the operators
        f'unireplknet::{name}', device_type, FILE_NAMES[device_type]
    )
