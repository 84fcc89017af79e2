"""Recordings in folders, of anyone's own data; the class is in the path."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.registry import DATASETS
from mmpretrain.datasets import BaseDataset

from unireplknet_mm.configuration import as_names
from unireplknet_mm.errors import ArgumentError, listed
from unireplknet_mm.modalities.audio.recordings import RecordingError
from unireplknet_mm.modalities.audio.searching import find_recordings
from unireplknet_mm.modalities.folders import warn_of_empty_classes

A_FOLDER_A_CLASS = r'(?P<label>[^/]+)/.*'


class RecordingDataset(BaseDataset):
    """What the audio data sets share: `load_data_list` gives a dict a recording.

    Its keys are `recording_path`, `gt_label`, the number of the class or, for several labels, a list of
    them, and optionally `start` and `duration` in seconds.
    """

    def __init__(self, data_root: str = '', pipeline: Sequence = (), **named: Any):
        super().__init__(
            **{**dict(ann_file=''), **named}, data_root=str(data_root), pipeline=pipeline
        )

    def extra_repr(self) -> list[str]:
        return [f'Data root: \t{self.data_root}']


@DATASETS.register_module()
class RecordingFolder(RecordingDataset):
    """All recordings below a folder whose path fits a pattern; a class without any is a warning.

    Args:
        data_root: the folder.
        classes: their names, in the order of the labels. Default: those of all paths that fit the pattern,
            sorted, whatever `only` and `without` leave; state them where other data may lack some.
        pattern: regular expression of a path relative to the folder, with '/', as a whole; its group
            `label` is the class. Default: the class is the first folder's name. Paths that do not fit are
            left out.
        only: {group of the pattern: its values}: other recordings are left out.
        without: {group of the pattern: its values}: those are left out.
        named: what mmpretrain's `BaseDataset` takes: `pipeline`, `test_mode`, `indices`, ...

    Raises:
        ArgumentError: the pattern has no group that is asked for.
        RecordingError: no recording is left, or one is of a class that is not in `classes`.

    Example of spoken digits, `3_theo_12.wav`, without one speaker::

        dict(type='RecordingFolder', data_root='recordings',
             pattern=r'(?P<label>\\d)_(?P<speaker>\\w+)_(?P<index>\\d+)\\.wav',
             without=dict(speaker=['theo']))
    """

    def __init__(
        self,
        data_root: str,
        classes: Sequence[str] | None = None,
        pattern: str = A_FOLDER_A_CLASS,
        only: Mapping[str, Sequence] | None = None,
        without: Mapping[str, Sequence] | None = None,
        **named: Any,
    ):
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise ArgumentError(f'pattern {pattern!r} is no regular expression: {error}') from error
        self.only = _as_text(only)
        self.without = _as_text(without)
        wanted = {'label', *self.only, *self.without}
        if missing := sorted(wanted - self.pattern.groupindex.keys()):
            raise ArgumentError(
                f'pattern {pattern!r} has no group {", ".join(missing)}: write it as (?P<NAME>...)'
            )
        super().__init__(data_root, classes=classes, **named)

    def load_data_list(self) -> list[dict[str, Any]]:
        fitting = list(self._find())
        found = [(path, match['label']) for path, match in fitting if self._is_wanted(match)]
        if not found:
            raise RecordingError(
                f'no recording below {self.data_root} fits the pattern {self.pattern.pattern!r}'
                + (f', {self.only} and not {self.without}' if self.only or self.without else '')
            )
        classes = as_names(self.CLASSES) or tuple(sorted({match['label'] for _, match in fitting}))
        self._metainfo['classes'] = classes
        if unknown := sorted({label for _, label in found} - set(classes)):
            raise RecordingError(
                f'{self.data_root} has recordings of {listed(unknown)}, which are not among the classes '
                f'{", ".join(classes)}'
            )
        numbers = self.class_to_idx
        samples = [dict(recording_path=path, gt_label=numbers[label]) for path, label in found]
        labels = (sample['gt_label'] for sample in samples)
        warn_of_empty_classes(self.data_root, classes, labels, 'recording')
        return samples

    def _find(self) -> Iterator[tuple[str, re.Match]]:
        start = len(str(self.data_root).rstrip('/')) + 1
        for path in find_recordings(str(self.data_root).rstrip('/')):
            match = self.pattern.fullmatch(path[start:].replace('\\', '/'))
            if match is not None and match['label'] is not None:
                yield path, match

    def _is_wanted(self, match: re.Match) -> bool:
        return all(match[group] in values for group, values in self.only.items()) and not any(
            match[group] in values for group, values in self.without.items()
        )


def _as_text(chosen: Mapping[str, Sequence] | None) -> dict[str, set[str]]:
    return {
        group: {str(value) for value in ([values] if isinstance(values, str | int) else values)}
        for group, values in (chosen or {}).items()
    }
