"""Running the tools as a user does, and reading what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def run_and_kill(tool: str, *arguments: object, cwd: Path, when: Path, log: Path) -> None:
    """Start a tool and kill it, and all that it started, with SIGKILL as soon as a file exists."""
    with log.open('w') as output:
        process = subprocess.Popen(
            command(tool, *arguments),
            cwd=cwd,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 400
        while not when.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        processes = [process.pid, *descendants(process.pid)]
        for pid in processes:
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert when.exists(), log.read_text()[-6000:]
    assert process.returncode == -signal.SIGKILL, 'it had ended before it could be killed'


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
