"""What never changes of a pipeline, computed once and kept on disk."""

import hashlib
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.files import replacing

KEPT = ('waveform', 'spectrogram', 'sample_rate', 'num_frames', 'offset')
# Of what files hold, and part of their key. A change of `KEPT`, or of what a transform computes with the same
# settings, counts it up, so that what was kept before is computed anew.
VERSION = 2


@TRANSFORMS.register_module()
class Cached(BaseTransform):
    """Transforms whose result is read from a file, once one process has written it.

    A file is found by the recording's path, size, date and part, and by the transforms with all their
    settings: change any, and it is computed anew. Files are written whole or not at all, so any number of
    workers and runs may share a folder. Random transforms do not belong here: those whose name begins with
    `Random`, and those whose `is_random` is true.

    Args:
        transforms: what is computed, `LoadRecording` first; kept is the last of `waveform` and `spectrogram`
            that they add.
        folder: of the cache; it may be removed at any time.

    Example::

        dict(type='Cached', folder='data/cache', transforms=[
            dict(type='LoadRecording'), dict(type='LogMel', mean=-6.85, std=5.57)])
    """

    def __init__(self, transforms: Sequence[dict | BaseTransform], folder: str):
        self.pipeline = Compose(transforms)
        self.folder = Path(folder)
        for transform in _walk(self.pipeline):
            if _is_random(transform):
                raise ArgumentError(
                    f'Cached would keep one result of {type(transform).__name__} for ever: '
                    'put it behind Cached'
                )

    def transform(self, results: Mapping[str, Any]) -> dict[str, Any] | None:
        path = self._path(results)
        if path is None:
            return self.pipeline(results)  # which says what is wrong with the recording
        try:
            with np.load(path, allow_pickle=False) as kept:
                return {**results, **{name: _unpacked(kept[name]) for name in kept.files}}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            pass  # not there, or damaged: it is written (again)
        computed = self.pipeline(dict(results))
        if computed is None or computed.get('is_replaced'):
            return computed  # nothing of this recording
        dropped = ('waveform',) if 'spectrogram' in computed else ()
        kept = {name: computed[name] for name in KEPT if name in computed and name not in dropped}
        with replacing(path) as partial, open(partial, 'wb') as stream:
            np.savez(stream, **{name: np.asarray(value) for name, value in kept.items()})
        return {**results, **kept}  # no more than the file will give

    def _path(self, results: Mapping[str, Any]) -> Path | None:
        try:
            status = os.stat(results['recording_path'])
        except OSError:
            return None
        of_file = (os.path.abspath(results['recording_path']), status.st_size, status.st_mtime_ns)
        part = (results.get('start'), results.get('duration'))
        key = repr((VERSION, of_file, part, [repr(t) for t in self.pipeline.transforms]))
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / f'{name[2:32]}.npz'

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.pipeline.transforms}, {str(self.folder)!r})'


def _walk(transform: Any) -> Iterator[Any]:
    """A transform and all that it holds, whatever it calls them: `Compose`, `RandomApply`, `Cached`, ..."""
    if isinstance(transform, list | tuple):
        for part in transform:
            yield from _walk(part)
    elif isinstance(transform, BaseTransform | Compose):
        yield transform
        yield from _walk(list(vars(transform).values()))


def _is_random(transform: Any) -> bool:
    return getattr(transform, 'is_random', type(transform).__name__.startswith('Random'))


def _unpacked(value: np.ndarray) -> Any:
    return torch.from_numpy(value) if value.ndim else value.item()
