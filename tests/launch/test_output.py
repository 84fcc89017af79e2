"""Standard output on a full disk, and read by someone who has seen enough."""

import contextlib
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unireplknet_mm.launch import exit_on_user_error
from unireplknet_mm.launch.output import checked_output

ROOT = Path(__file__).parents[2]
FULL = Path('/dev/full')
MESSAGE = (
    'error: standard output cannot be written: No space left on device.\n'
    'Make room where it goes, or direct it to another disk.\n'
)
needs_full = pytest.mark.skipif(not FULL.exists(), reason='this system has no /dev/full')


@contextlib.contextmanager
def log():
    """A log as MMEngine's, to what is standard output then."""
    logger, handler = logging.getLogger('test_output'), logging.StreamHandler(sys.stdout)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)


def print_much() -> None:
    for i in range(10_000):
        print('line', i)


def print_little() -> None:
    """It stays in the buffer until the end."""
    print('line')


def log_much() -> None:
    with log() as logger:
        for i in range(100):
            logger.warning('line %d', i)


@needs_full
@pytest.mark.parametrize('tool', [print_much, print_little, log_much])
def test_a_full_one_ends_a_tool_with_one_message(tool, monkeypatch, capsys):
    with FULL.open('w') as full:
        monkeypatch.setattr(sys, 'stdout', full)
        with pytest.raises(SystemExit) as error:
            exit_on_user_error(tool)()
        assert sys.stdout is full
    assert error.value.code == 1
    assert capsys.readouterr().err == MESSAGE


@contextlib.contextmanager
def closed_pipe(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, 'w') as stream:
        monkeypatch.setattr(sys, 'stdout', stream)
        yield


@pytest.mark.parametrize('tool', [print_much, print_little])
def test_a_closed_one_ends_what_prints_without_a_word(tool, monkeypatch, capsys):
    with closed_pipe(monkeypatch), pytest.raises(SystemExit) as error:
        exit_on_user_error(tool)()
    assert error.value.code == 1
    assert capsys.readouterr().err == ''


def test_a_closed_one_does_not_end_a_training_that_logs(monkeypatch, capsys):
    with closed_pipe(monkeypatch):
        exit_on_user_error(log_much)()
    assert capsys.readouterr().err == ''


def test_broken_pipes_of_others_are_not_taken_for_it():
    def tool() -> None:
        raise BrokenPipeError('of a worker')

    with pytest.raises(BrokenPipeError, match='of a worker'):
        exit_on_user_error(tool)()


def test_other_errors_of_a_log_are_told_as_ever(capsys):
    handler = logging.StreamHandler(sys.stdout)
    with checked_output():
        handler.handle(
            logging.LogRecord('log', logging.INFO, __file__, 1, '%d', ('no number',), None)
        )
    assert '--- Logging error ---' in capsys.readouterr().err


@needs_full
def test_the_interpreter_has_nothing_to_add():
    """It writes what is left in the buffer when it ends."""
    with FULL.open('w') as full:
        script = 'from unireplknet_mm.launch import exit_on_user_error\nexit_on_user_error(print)("line")'
        process = subprocess.run(
            [sys.executable, '-c', script],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'ops')])},
        )
    assert (process.returncode, process.stderr) == (1, MESSAGE)
