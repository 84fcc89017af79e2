"""What a benchmark keeps: times by pass and implementation, and the machine they were taken on."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import torch

from unireplknet_ops import tuning_tables
from unireplknet_ops.files import write_text
from unireplknet_ops.measure import Shape


@dataclass
class Measurement:
    """One pass of one shape, every implementation timed in the same minute.

    `seconds` by candidate ('op contiguous', 'native channels_last', ...); `left_out` tells why a
    candidate has no time; `wrong` what the op got wrong.
    """

    shape: Shape
    name: str
    threads: int
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    wrong: str | None = None

    def as_dict(self) -> dict:
        """For JSON; the shape's fields in line."""
        shape = self.shape._asdict() | {'dtype': tuning_tables.dtype_name(self.shape.dtype)}
        return shape | {key: value for key, value in asdict(self).items() if key != 'shape'}


def describe_machine(device: str) -> dict[str, str]:
    """What the results depend on."""
    machine = {
        'device': tuning_tables.device_name(device),
        'level': tuning_tables.device_level(device),
        'torch': torch.__version__,
        'python': platform.python_version(),
        'date': datetime.now(timezone.utc).strftime('%Y-%m-%d'),
    }
    if device == 'cpu':
        machine['cores'] = str(os.cpu_count())
        machine['load at start'] = f'{os.getloadavg()[0]:.1f}'
    else:
        machine['cuda'] = str(torch.version.cuda)
        machine['cudnn'] = str(torch.backends.cudnn.version())
    return machine


def write_json(path: Path | None, content: dict) -> None:
    """Write a run's results, also into a folder that is not there yet; nothing where path is None.

    Raises:
        FileError: they cannot be written.
    """
    if path is not None:
        write_text(path, json.dumps(content, indent=1))
