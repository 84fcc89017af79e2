"""Peak memory of a call: what tensors hold, on the CPU as on a GPU.

On a GPU torch's caching allocator keeps count. On the CPU it does not, so `torch.profiler` records every
allocation and release of one call, and the peak is that of their running sum. Both count the tensors that
torch allocates, to the byte and whatever else the machine does; neither counts what a library takes for
itself (oneDNN's and cuDNN's scratch, code). The size of the process (`ru_maxrss`) would include that, but
also what the allocator keeps of earlier calls, torch's own code, and every other model that takes its
turn in the process.
"""

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

MEMORY_EVENT = '[memory]'


def peak_of_call(call: Callable[[], Any], device: str) -> int:
    """Bytes that a call holds at its peak beyond what was there before it.

    What a call frees that was there before does not count for it: release gradients before.

    Args:
        call: called once; what it returns lives to its end.
        device: 'cpu' or 'cuda'.
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as profiler:
        result = call()
    del result
    return _highest(_cpu_allocations(profiler))


def _cpu_allocations(profiler: profile) -> list[int]:
    """Bytes of each allocation, negative for a release, in the order of time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding='utf-8'))['traceEvents']
    events = [event for event in events if event.get('name') == MEMORY_EVENT]
    events = [event for event in events if event['args']['Device Type'] == 0]
    return [event['args']['Bytes'] for event in sorted(events, key=lambda event: event['ts'])]


def _highest(changes: Iterable[int]) -> int:
    highest = level = 0
    for change in changes:
        level += change
        highest = max(highest, level)
    return highest


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages of tensors, each storage once."""
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr(), storage.nbytes()] = storage.nbytes()
    return sum(storages.values())
