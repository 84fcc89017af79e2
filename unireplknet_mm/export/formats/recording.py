"""The graph of a model, recorded by `torch.export`, with what stops it said in a line or two."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.export import ExportedProgram

from unireplknet_mm.export.deployable import Deployable
from unireplknet_mm.export.errors import ExportError, first_line
from unireplknet_mm.export.formats.base import Settings


def record(deployable: Deployable, example: Tensor, settings: Settings) -> ExportedProgram:
    """The graph of its `forward`, of PyTorch's own operators.

    Raises:
        ExportError: it cannot be recorded with these axes open, or takes no input of this size.
    """
    try_once(deployable, example)
    shapes = deployable.dynamic_shapes(settings.dynamic)
    with explained(settings), torch.no_grad():
        return torch.export.export(deployable, (example,), dynamic_shapes=shapes, strict=False)


def try_once(deployable: Deployable, example: Tensor) -> None:
    """Run the function as it is.

    Raises:
        ExportError: it does not take an input of this shape.
    """
    try:
        with torch.no_grad():
            deployable(example)
    except (RuntimeError, ValueError, AssertionError) as error:
        shape = '×'.join(map(str, example.shape[1:]))
        raise ExportError(
            f'the model does not take an input of {shape}: {first_line(error)}\n'
            'Choose another --input-size.'
        ) from error


@contextmanager
def explained(settings: Settings) -> Iterator[None]:
    """Turn what the exporters raise into an error of one or two lines, and keep them from chattering.

    Raises:
        ExportError: in place of whatever they raise.
    """
    loggers = [logging.getLogger(name) for name in ('torch.export', 'torch.onnx', 'onnxscript')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(explain(error, settings)) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def explain(error: Exception, settings: Settings) -> str:
    """What an exporter ran into, and the way out."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    names = {type(cause).__name__ for cause in causes}
    line = first_line(causes[-1])
    if 'specialized due to hint of 1' in str(causes[-1]):
        return 'an axis of 1 is recorded as fixed: choose a larger --input-size, or leave out --dynamic.'
    if 'ConstraintViolationError' in names or 'specialized' in line or 'Constraints' in line:
        return (
            f'the model does not leave {" and ".join(settings.dynamic)} open: {line}\n'
            'Leave out --dynamic, or what of it does not work.'
        )
    if 'DispatchError' in names or 'No ONNX function found' in line or 'No decompositions' in line:
        return f'the format lacks an operator of the model: {line}\nTry --format torch-export.'
    if 'GuardOnDataDependentSymNode' in names or 'Could not guard' in line:
        return f'the path through the model depends on what is in the image, which no graph holds: {line}'
    return f'the model cannot be exported: {type(causes[-1]).__name__}: {line}'
