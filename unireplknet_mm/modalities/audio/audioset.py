"""AudioSet (ICASSP 2017): ten seconds of a video each, 527 labels, several a recording."""

import csv
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import DATASETS

from unireplknet_mm.datasets.layouts.audioset import LABELS
from unireplknet_mm.errors import ArgumentError, MissingFileError
from unireplknet_mm.modalities.audio.folder import RecordingDataset
from unireplknet_mm.modalities.audio.recordings import RecordingError
from unireplknet_mm.modalities.audio.searching import find_recordings


@DATASETS.register_module()
class AudioSet(RecordingDataset):
    """The recordings of one of AudioSet's CSV lists that are on the disk.

    Many of its videos are no longer to be had. Recordings that are missing are left out, and the log says how
    many. A file is found by its name anywhere below the folder: the video's number, or that with a `Y` before
    it, as the common downloads have it.

    Args:
        data_root: with the lists and `class_labels_indices.csv`, as the authors publish them.
        ann_file: a list, `balanced_train_segments.csv`, `unbalanced_train_segments.csv` or
            `eval_segments.csv`, or several of them.
        data_prefix: the folder of the recordings, below `data_root`.
        most_missing: an error where a larger share is missing.
        named: what mmpretrain's `BaseDataset` takes.

    Raises:
        MissingFileError: a list or the folder does not exist.
        RecordingError: a list cannot be read, or too many recordings are missing.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str | Sequence[str] = 'balanced_train_segments.csv',
        data_prefix: str = 'audio',
        most_missing: float = 0.5,
        **named: Any,
    ):
        if not 0 <= most_missing <= 1:
            raise ArgumentError(f'most_missing is a share from 0 to 1, got {most_missing}')
        self.most_missing = most_missing
        self.lists = [ann_file] if isinstance(ann_file, str) else list(ann_file)
        super().__init__(data_root, data_prefix=data_prefix, **named)

    def load_data_list(self) -> list[dict[str, Any]]:
        numbers = self._read_classes()
        files = {
            os.path.splitext(os.path.basename(path))[0]: path
            for path in find_recordings(self.img_prefix)
        }
        samples, missing = [], 0
        for ytid, mids in self._read_lists():
            path = files.get(ytid) or files.get(f'Y{ytid}')
            if path is None:
                missing += 1
                continue
            if unknown := [mid for mid in mids if mid not in numbers]:
                raise RecordingError(
                    f'{", ".join(self.lists)}: {ytid} has the label {unknown[0]!r}, which is not in {LABELS}'
                )
            labels = [numbers[mid] for mid in mids]
            samples.append(dict(recording_path=path, gt_label=labels))
        self._report(len(samples), missing)
        return samples

    def _read_lists(self) -> Iterator[tuple[str, list[str]]]:
        """A recording's video and the machine names of its labels."""
        for name in self.lists:
            path = os.path.join(self.data_root, name)
            with _open(path) as stream:
                lines = (line for line in stream if line.strip() and not line.startswith('#'))
                for row in csv.reader(lines, skipinitialspace=True):
                    if len(row) != 4:
                        raise RecordingError(
                            f'{path}: {",".join(row)!r} is no line of AudioSet: YTID, start, end, "labels"'
                        )
                    yield row[0], row[3].split(',')

    def _read_classes(self) -> dict[str, int]:
        """The numbers of the labels by their machine names, such as `/m/09x0r`."""
        path = os.path.join(self.data_root, LABELS)
        with _open(path) as stream:
            rows = list(csv.DictReader(stream))
        try:
            self._metainfo['classes'] = tuple(row['display_name'] for row in rows)
            return {row['mid']: int(row['index']) for row in rows}
        except (KeyError, ValueError) as error:
            raise RecordingError(f'{path} is no list of classes of AudioSet ({error})') from error

    def _report(self, found: int, missing: int) -> None:
        total = found + missing
        lists = ', '.join(self.lists)
        text = f'{missing:,} of the {total:,} recordings in {lists} are not below {self.img_prefix}'
        if not found or missing > self.most_missing * total:
            raise RecordingError(
                f'{text}: most_missing={self.most_missing} allows no more than that share'
            )
        if missing:
            print_log(f'{text}: left out.', logger='current', level=logging.WARNING)

    def get_cat_ids(self, idx: int) -> list[int]:
        return list(self.get_data_info(idx)['gt_label'])


def _open(path: str):
    try:
        return open(path, encoding='utf-8', newline='')
    except FileNotFoundError:
        raise MissingFileError(f'{path}, a list of AudioSet, does not exist') from None
