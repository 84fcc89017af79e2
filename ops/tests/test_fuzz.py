"""A short run of the random calls; `make fuzz-ops` makes 10,000 under AddressSanitizer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unireplknet_ops import library

FUZZ = Path(__file__).with_name('fuzz.py')


def test_random_calls_of_every_instruction_set():
    if (reason := library.missing('cpu')) is not None:
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, FUZZ, '--calls', '100', '--library', str(library.directory())],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'portable: ' in done.stdout and done.stdout.count(' 0 wrong') >= 1
