"""The machine that a measurement was taken on, and whether others were using it."""

import time
from pathlib import Path

from unireplknet_mm.errors import UserError
from unireplknet_ops.results import describe_machine

PROC_STAT = Path('/proc/stat')
MOST_BUSY_CORES = 0.3
BUSY_KEY = 'busy cores at start'


def describe(device: str) -> dict[str, str]:
    """What results depend on; on Linux also how many cores were busy with something else."""
    machine = describe_machine(device)
    machine.pop('load at start', None)  # includes what this user measured a minute ago
    busy = busy_cores()
    return machine if busy is None else machine | {BUSY_KEY: f'{busy:.1f}'}


def busy_cores(seconds: float = 1.0) -> float | None:
    """How many cores' worth of work other processes do during some seconds; None where Linux cannot say."""
    if not PROC_STAT.exists():
        return None
    before = _busy_jiffies()
    time.sleep(seconds)
    after = _busy_jiffies()
    cores = sum(line.startswith('cpu') for line in PROC_STAT.read_text().splitlines()) - 1
    total = after[1] - before[1]
    return cores * (after[0] - before[0]) / total if total else 0.0


def _busy_jiffies() -> tuple[int, int]:
    """Busy and all jiffies of all cores since the machine started."""
    # user nice system idle iowait irq softirq steal; guests are within user
    numbers = [int(number) for number in PROC_STAT.read_text().split('\n', 1)[0].split()[1:9]]
    return sum(numbers) - numbers[3] - numbers[4], sum(numbers)


def refuse_busy_machine(machine: dict[str, str]) -> None:
    """Figures for a page are not taken beside other work.

    Raises:
        UserError: others keep more than `MOST_BUSY_CORES` cores busy.
    """
    busy = float(machine.get(BUSY_KEY, 0))
    if busy > MOST_BUSY_CORES:
        raise UserError(
            f'--docs: {busy:.1f} cores of this machine are busy with something else: its times would not '
            'stand.\nEnd what runs, or measure without --docs.'
        )
