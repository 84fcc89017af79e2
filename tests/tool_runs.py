"""Running the tools as a user does, or in processes that need not import everything anew, and reading
what they leave behind."""

import contextlib
import functools
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import mmengine.config.config
import numpy
from yapf.yapflib import yapf_api

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / 'tools'
CONFIGS = ROOT / 'tests' / 'data' / 'configs'


def environment(**variables: str) -> dict[str, str]:
    """That of a plain run on CPU: no variables of a surrounding torchrun, one thread a process."""
    removed = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    kept = {key: value for key, value in os.environ.items() if key not in removed}
    return {
        **kept,
        'PYTHON': sys.executable,
        'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'ops')]),
        'CUDA_VISIBLE_DEVICES': '',
        'OMP_NUM_THREADS': '1',
        **variables,
    }


def command(tool: str, *arguments: object) -> list[str]:
    interpreter = 'bash' if tool.endswith('.sh') else sys.executable
    return [interpreter, str(TOOLS / tool), *map(str, arguments)]


def run(tool: str, *arguments: object, cwd: Path, status: int = 0, **variables: str) -> str:
    """Run a tool to its end; its output, or for another `status` than 0 what it says on stderr."""
    result = subprocess.run(
        command(tool, *arguments),
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == status, result.stdout[-3000:] + result.stderr[-6000:]
    return result.stderr if status else result.stdout + result.stderr


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have, and so on."""
    lines = subprocess.run(['ps', '-eo', 'pid=,ppid='], capture_output=True, text=True).stdout
    pairs = [tuple(map(int, line.split())) for line in lines.splitlines()]
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in pairs if its_parent == parent]
    return found[1:]


def skip_layout() -> None:
    """Leave out MMEngine's laying out of the config with yapf, most of what a short run computes."""
    for place in (yapf_api, mmengine.config.config):  # mmengine 0.10.7 has it in the second
        place.FormatCode = lambda text, **style: (text, True)


# Python's fork server imports these once, in a process of one thread; the processes that it forks find them
# imported, which takes longer than most of what a test runs. Elsewhere than on Linux, where libraries may not
# be used across a fork, each process imports what it needs.
PROCESSES = multiprocessing.get_context('forkserver' if sys.platform == 'linux' else 'spawn')
if sys.platform == 'linux':
    PROCESSES.set_forkserver_preload(
        [
            'unireplknet_mm.launch',
            *(
                f'{toolbox}.{part}'
                for toolbox in ('mmpretrain', 'mmdet', 'mmseg')
                for part in ('models', 'datasets', 'evaluation', 'visualization', 'engine')
            ),
        ]
    )
ENVIRONMENT = environment()  # the fork server's, whichever test starts it and with which variables


def fork(function: Callable, *arguments: object, **variables: str) -> BaseProcess:
    """Run a function of a module in a process of its own."""
    process = PROCESSES.Process(
        target=prepare_and_call, args=(function, arguments, environment(**variables))
    )
    before = os.environ.copy()
    set_environment(ENVIRONMENT)
    try:
        process.start()
    finally:
        set_environment(before)
    return process


def set_environment(variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def prepare_and_call(function: Callable, arguments: tuple, variables: dict[str, str]) -> None:
    """What a process of `fork` does."""
    set_environment(variables)
    numpy.random.seed()  # else every process would draw the same numbers where nothing seeds
    skip_layout()
    function(*arguments)


@functools.cache
def paths() -> list[str]:
    """Where a process of its own looks for modules: what this one imports may have added to `sys.path`."""
    code = 'import sys; print(*sys.path[1:], sep=chr(0), end="")'
    command = [sys.executable, '-c', code]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=True
    ).stdout.split('\0')


def run_script(script: Path, arguments: list[str], paths: list[str], cwd: Path, log: Path) -> None:
    """As `python script arguments >>log 2>&1`, but for the end: the interpreter is not taken down."""
    os.chdir(cwd)
    with log.open('ab') as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path[:] = [str(script.parent), *paths]
    sys.argv[:] = [str(script), *arguments]
    runpy.run_path(str(script), run_name='__main__')


def start(tool: str, *arguments: object, cwd: Path, log: Path, ranks: int = 1) -> list[BaseProcess]:
    """Start a tool in one process, or in as many as torchrun would start."""
    arguments = [*map(str, arguments), *(['--launcher', 'pytorch'] if ranks > 1 else [])]
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(ranks):
        variables = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=ranks, LOCAL_WORLD_SIZE=ranks)
        variables |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        variables = {name: str(value) for name, value in variables.items()} if ranks > 1 else {}
        processes.append(fork(run_script, TOOLS / tool, arguments, paths(), cwd, log, **variables))
    return processes


def run_forked(tool: str, *arguments: object, cwd: Path, ranks: int = 1, status: int = 0) -> str:
    """Run a tool to its end in forked processes, or until one of them fails; what they print."""
    log = cwd / f'log_{time.monotonic_ns()}.txt'
    processes = start(tool, *arguments, cwd=cwd, log=log, ranks=ranks)
    deadline = time.monotonic() + 500
    try:
        while alive := [process for process in processes if process.exitcode is None]:
            ended = wait([process.sentinel for process in alive], deadline - time.monotonic())
            if not ended or any(process.exitcode for process in processes):
                break
    finally:
        kill([process for process in processes if process.exitcode is None])
    statuses = [process.exitcode for process in processes]
    assert status in statuses if status else statuses == [0] * ranks, log.read_text()[-6000:]
    return log.read_text()


def kill(processes: list[BaseProcess]) -> None:
    """Kill processes, and all that they started, with SIGKILL."""
    pids = [process.pid for process in processes]
    for pid in [*pids, *(child for parent in pids for child in descendants(parent))]:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, signal.SIGKILL)
    for process in processes:
        process.join()


def run_and_kill(
    tool: str, *arguments: object, cwd: Path, when: Path, log: Path, ranks: int = 1
) -> None:
    """Start a tool and kill it, and all that it started, with SIGKILL as soon as a file exists."""
    processes = start(tool, *arguments, cwd=cwd, log=log, ranks=ranks)
    deadline = time.monotonic() + 400
    try:
        while not when.exists() and time.monotonic() < deadline:
            if not all(process.is_alive() for process in processes):
                break
            time.sleep(0.01)
    finally:
        kill(processes)
    assert when.exists(), log.read_text()[-6000:]
    killed = [-signal.SIGKILL] * ranks
    assert [process.exitcode for process in processes] == killed, 'it had ended before'


def read_scores(work_dir: Path) -> dict[str, float]:
    """The metrics that the latest test in a work dir ended with."""
    latest = max(work_dir.glob('2*/2*.json'), key=lambda file: file.stat().st_mtime_ns)
    return json.loads(latest.read_text().splitlines()[-1])


def read_losses(work_dir: Path) -> list[dict[int, float]]:
    """For each run in a work dir, in the order of their start: step -> loss."""
    runs = []
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        runs.append({line['step']: line['loss'] for line in lines if 'loss' in line})
    return runs


def kill_and_resume(
    *arguments: object, work_dir: Path, cwd: Path, last: str, ranks: int = 1
) -> str:
    """Kill a training between its first and `last` checkpoint and resume it; what the second run says."""
    run_and_kill(
        *('train.py', *arguments, '--work-dir', work_dir),
        cwd=cwd,
        when=work_dir / 'last_checkpoint',
        log=cwd / 'log',
        ranks=ranks,
    )
    assert not (work_dir / last).exists()
    again = (*arguments, '--work-dir', work_dir, '--resume')
    return run_forked('train.py', *again, cwd=cwd, ranks=ranks)


def compare_losses(whole: Path, killed: Path, last_step: int) -> None:
    """Those of a training and of the same one, killed and resumed: equal, step by step."""
    (expected,) = read_losses(whole)
    before, after = read_losses(killed)
    assert list(expected) == list(range(1, last_step + 1))
    assert len(set(expected.values())) == last_step
    assert before == {step: expected[step] for step in before}
    assert 0 < len(before) < last_step, 'the run was not killed in between'
    assert 0 < len(after) < last_step, 'the second run did not resume'
    assert after == {step: expected[step] for step in range(min(after), last_step + 1)}


def train_on_two_processes_in_bfloat16(*arguments: object, cwd: Path) -> dict[int, float]:
    """The losses by step."""
    arguments = (*arguments, '--amp', '--work-dir', cwd / 'work')
    log = run_forked('train.py', *arguments, cwd=cwd, ranks=2)
    assert 'GPU number: 2' in log and 'CpuAmpOptimWrapper' in log
    (losses,) = read_losses(cwd / 'work')
    assert all(0 < loss < 20 for loss in losses.values())
    return losses
