"""Standard output that takes no more: an error that says so, once, and not for every line of a log."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from unireplknet_mm.files import NO_SPACE, NoSpaceError, no_space_error


class ClosedOutputError(BrokenPipeError):
    """Who read standard output has gone."""


class NamedOutput:
    """A text stream whose errors say that they are its own: a full disk's have no file name there."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        with self.naming_itself():
            return self.stream.write(text)

    def flush(self) -> None:
        with self.naming_itself():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextlib.contextmanager
    def naming_itself(self) -> Iterator[None]:
        """Tell a full disk and a closed pipe from those of others. What is left in the stream is dropped.

        The interpreter would try to write that once more when it ends, and say so in words of its own.
        """
        try:
            yield
        except OSError as error:
            if error.errno in NO_SPACE:
                self.discard()
                raise NoSpaceError(
                    f'standard output cannot be written: {error.strerror}.\n'
                    'Make room where it goes, or direct it to another disk.',
                    error.errno,
                ) from error
            if isinstance(error, BrokenPipeError):
                self.discard()
                raise ClosedOutputError(*error.args) from None
            raise

    def discard(self) -> None:
        """Let what is left, and all that follows, go nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """While a tool runs: where a log or standard output has no room, an error ends it.

    Raises:
        NoSpaceError: it had none.
        ClosedOutputError: who read what is printed has gone. What is only logged does not end a training: it
            has a file as well.
    """
    stdout, handle_error = sys.stdout, logging.StreamHandler.handleError
    sys.stdout = NamedOutput(stdout)
    logging.StreamHandler.handleError = handle_log_error
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, logging.StreamHandler.handleError = stdout, handle_error


def handle_log_error(handler: logging.StreamHandler, record: logging.LogRecord) -> None:
    """End the run where there is no room, instead of printing a traceback for every line of the log."""
    error = sys.exc_info()[1]
    if isinstance(error, ClosedOutputError):
        return
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        raise no_space_error(error, getattr(handler, 'baseFilename', None)) from error
    logging.Handler.handleError(handler, record)
