"""What the tools share: how they end."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tool_runs import TOOLS

PROGRAM = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from common_options import clean_up_when_terminated
clean_up_when_terminated()
if sys.argv[2] == 'forked' and (child := os.fork()):
    print(child, flush=True)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
if sys.argv[2] != 'forked':
    print(os.getpid(), flush=True)
try:
    time.sleep(60)
except SystemExit:
    print('cleaned up', flush=True)
    raise
"""


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork')
@pytest.mark.parametrize('who', ['itself', 'forked'])
def test_termination_cleans_up_in_the_process_itself_only(who):
    process = subprocess.Popen(
        [sys.executable, '-c', PROGRAM, TOOLS, who], stdout=subprocess.PIPE, text=True
    )
    number = int(process.stdout.readline())
    time.sleep(0.5)
    os.kill(number, signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert ('cleaned up' in output) == (who == 'itself')
