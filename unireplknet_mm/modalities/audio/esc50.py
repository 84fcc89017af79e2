"""ESC-50 (10.1145/2733373.2806390): 2,000 environmental sounds of five seconds in five folds."""

import csv
import os
from typing import Any

from mmengine.registry import DATASETS

from unireplknet_mm.errors import ArgumentError, MissingFileError
from unireplknet_mm.modalities.audio.folder import RecordingDataset
from unireplknet_mm.modalities.audio.recordings import RecordingError

LIST = 'meta/esc50.csv'
NUM_FOLDS = 5


@DATASETS.register_module()
class ESC50(RecordingDataset):
    """A fold for testing, the others for training; published accuracies are the mean over the five folds.

    Args:
        data_root: of the unpacked archive, with `meta/esc50.csv` and `audio/`.
        subset: 'train' or 'test'.
        fold: that is tested, 1 to 5.
        named: what mmpretrain's `BaseDataset` takes.

    Raises:
        MissingFileError: there is no list.
        RecordingError: the list cannot be read, or has nothing for the split.
    """

    def __init__(self, data_root: str, subset: str = 'train', fold: int = 1, **named: Any):
        if subset not in ('train', 'test'):
            raise ArgumentError(f'subset must be train or test, got {subset!r}')
        if fold not in range(1, NUM_FOLDS + 1):
            raise ArgumentError(f'fold must be from 1 to {NUM_FOLDS}, got {fold!r}')
        self.subset, self.fold = subset, fold
        super().__init__(data_root, **named)

    def load_data_list(self) -> list[dict[str, Any]]:
        path = os.path.join(self.data_root, LIST)
        try:
            with open(path, encoding='utf-8', newline='') as stream:
                rows = list(csv.DictReader(stream))
        except FileNotFoundError:
            raise MissingFileError(
                f'{path} does not exist: data_root is the folder of the unpacked ESC-50'
            ) from None
        try:
            names = {int(row['target']): row['category'] for row in rows}
            self._metainfo['classes'] = tuple(names[number] for number in sorted(names))
            samples = [
                dict(
                    recording_path=os.path.join(self.data_root, 'audio', row['filename']),
                    gt_label=int(row['target']),
                )
                for row in rows
                if (int(row['fold']) == self.fold) == (self.subset == 'test')
            ]
        except (KeyError, ValueError) as error:
            raise RecordingError(f'{path} is not the list of ESC-50 ({error})') from error
        if not samples:
            raise RecordingError(f'{path} has no recording for {self.subset} with fold={self.fold}')
        return samples
