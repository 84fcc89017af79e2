"""Runs in forked processes are those of an interpreter of their own."""

import json
import os
import sys

import pytest
from tool_runs import fork, run, run_forked

SHOW = """
import json, os, sys
import numpy
facts = dict(
    name=__name__,
    file=__file__,
    argv=sys.argv,
    path=sys.path,
    cwd=os.getcwd(),
    stdin=sys.stdin.read(),
    environment={name: value for name, value in os.environ.items() if name != '_'},
    forgotten='from_another_test' in vars(json),
)
json.from_another_test = True
if os.environ.get('RANK', '0') == '0':
    print('a line on stderr', file=sys.stderr)
    print(json.dumps([facts, numpy.random.random()]))
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def show(tmp_path):
    script = tmp_path / 'show.py'
    script.write_text(SHOW)
    return str(script)


def test_a_forked_run_sees_what_a_process_does(show, tmp_path, monkeypatch):
    run_forked(show, 0, cwd=tmp_path)
    monkeypatch.setenv('OF_THIS_TEST', 'set')
    monkeypatch.setattr(sys, 'path', [*sys.path, str(tmp_path / 'of_another_test')])
    expected, drawn = json.loads(run(show, 0, cwd=tmp_path).splitlines()[0])
    first, second = (run_forked(show, 0, cwd=tmp_path) for _ in range(2))
    results = []
    for output in (first, second):
        lines = output.splitlines()
        assert 'a line on stderr' in lines
        results.append(json.loads(next(line for line in lines if line.startswith('['))))
    assert results[0][0] == results[1][0] == expected
    assert expected['environment']['OF_THIS_TEST'] == 'set'
    assert len({drawn, *(result[1] for result in results)}) == 3


def test_exit_statuses(show, tmp_path):
    assert 'a line on stderr' in run_forked(show, 3, cwd=tmp_path, status=3)
    with pytest.raises(AssertionError, match='a line on stderr'):
        run_forked(show, 3, cwd=tmp_path)
    fails = tmp_path / 'fails.py'
    fails.write_text("raise ValueError('said with its traceback')\n")
    log = run_forked(str(fails), cwd=tmp_path, status=1)
    assert 'Traceback (most recent call last):' in log
    assert 'ValueError: said with its traceback' in log


def test_the_other_ranks_of_a_run_that_fails_are_killed(tmp_path):
    script = tmp_path / 'waits.py'
    script.write_text(
        'import os, pathlib, sys, time\n'
        "pathlib.Path(os.environ['RANK']).write_text(str(os.getpid()))\n"
        "if os.environ['RANK'] == '1':\n"
        '    time.sleep(600)\n'
        "while not pathlib.Path('1').exists():\n"
        '    time.sleep(0.01)\n'
        "sys.exit('the first rank fails')\n"
    )
    assert 'the first rank fails' in run_forked(str(script), cwd=tmp_path, ranks=2, status=1)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / '1').read_text()), 0)


def write_threads_of_the_fork_server(path):
    path.write_text(str(len(os.listdir(f'/proc/{os.getppid()}/task'))))


@pytest.mark.skipif(sys.platform != 'linux', reason='processes are forked on Linux alone')
def test_the_fork_server_has_one_thread(tmp_path):
    """What another thread holds at the fork, a lock for example, it would hold for ever."""
    process = fork(write_threads_of_the_fork_server, tmp_path / 'threads')
    process.join(100)
    assert (tmp_path / 'threads').read_text() == '1'
