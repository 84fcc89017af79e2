"""Speech Commands V2 (arXiv 1804.03209): words of one second, with the official lists of its splits."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import soundfile
from mmengine.registry import DATASETS

from unireplknet_mm.datasets.layouts.speech_commands import (
    BACKGROUND,
    COMMANDS,
    LISTS,
    SILENCE,
    UNKNOWN,
    WORDS,
)
from unireplknet_mm.errors import ArgumentError, MissingFileError
from unireplknet_mm.modalities.audio.folder import RecordingDataset
from unireplknet_mm.modalities.audio.recordings import RecordingError
from unireplknet_mm.modalities.audio.searching import find_recordings

# The part of each background recording, of which silence is cut, that a split has.
BACKGROUND_PARTS = dict(train=(0.0, 0.8), val=(0.8, 0.9), test=(0.9, 1.0))


@DATASETS.register_module()
class SpeechCommands(RecordingDataset):
    """35 words, or ten commands with unknown words and silence.

    A split is what `validation_list.txt` and `testing_list.txt` say, training what is in neither. In the
    12-class form, `_unknown_` are other words and `_silence_` parts of the background recordings, each as
    many as a tenth of the commands' recordings; which ones does not depend on the machine. The official test
    archive of that form has a folder a class, which `RecordingFolder` reads.

    Args:
        data_root: of the unpacked archive `speech_commands_v0.02`.
        subset: 'train', 'val' or 'test'.
        num_classes: 35 or 12.
        share: of unknown words and of silence in the 12-class form, relative to the commands.
        named: what mmpretrain's `BaseDataset` takes.

    Raises:
        MissingFileError: there is no such folder or list.
        RecordingError: a split has no recording.
    """

    def __init__(
        self,
        data_root: str,
        subset: str = 'train',
        num_classes: int = 35,
        share: float = 0.1,
        **named: Any,
    ):
        if subset not in BACKGROUND_PARTS:
            raise ArgumentError(f'subset must be train, val or test, got {subset!r}')
        if num_classes not in (35, 12):
            raise ArgumentError(f'Speech Commands has 35 or 12 classes, not {num_classes}')
        self.subset, self.share = subset, share
        classes = WORDS if num_classes == 35 else (*COMMANDS, SILENCE, UNKNOWN)
        super().__init__(data_root, classes=classes, **named)

    def load_data_list(self) -> list[dict[str, Any]]:
        recordings = {word: [] for word in WORDS}
        for name in self._names():
            word = name.partition('/')[0]
            if word in recordings:
                recordings[word].append(name)
        if not any(recordings.values()):
            raise RecordingError(f'the {self.subset} subset of {self.data_root} has no recording')
        if len(self.CLASSES) == 35:
            return [self._sample(name, word) for word in WORDS for name in recordings[word]]
        samples = [self._sample(name, word) for word in COMMANDS for name in recordings[word]]
        count = round(len(samples) * self.share)
        others = [n for word in WORDS if word not in COMMANDS for n in recordings[word]]
        samples += [
            self._sample(name, UNKNOWN) for name in sorted(others, key=_hash_of)[: max(1, count)]
        ]
        return samples + self._silence(max(1, count))

    def _names(self) -> Sequence[str]:
        """Of the split's recordings, relative to the root, with '/'."""
        lists = {split: self._read_list(file) for split, file in LISTS.items()}
        if self.subset in lists:
            return lists[self.subset]
        held_out = {name for names in lists.values() for name in names}
        start = len(str(self.data_root).rstrip('/')) + 1
        names = (
            path[start:].replace('\\', '/')
            for path in find_recordings(str(self.data_root).rstrip('/'))
        )
        return [name for name in names if name not in held_out]

    def _read_list(self, file: str) -> list[str]:
        path = os.path.join(self.data_root, file)
        try:
            with open(path, encoding='utf-8') as stream:
                return [line.strip() for line in stream if line.strip()]
        except FileNotFoundError:
            raise MissingFileError(
                f'{path}, a list of Speech Commands V2, does not exist: data_root is the folder of the '
                'unpacked archive'
            ) from None

    def _sample(self, name: str, label: str) -> dict[str, Any]:
        path = os.path.join(self.data_root, name)
        return dict(recording_path=path, gt_label=self.class_to_idx[label])

    def _silence(self, count: int) -> list[dict[str, Any]]:
        """Parts of one second, evenly over the split's part of all background recordings."""
        folder = os.path.join(self.data_root, BACKGROUND)
        files = find_recordings(folder)
        if not files:
            raise RecordingError(f'{folder} has no recording to cut silence of')
        durations = [soundfile.info(file).duration for file in files]
        samples = []
        for index in range(count):
            file, duration = files[index % len(files)], durations[index % len(files)]
            first, last = (part * duration for part in BACKGROUND_PARTS[self.subset])
            rounds = -(-count // len(files))
            start = first + max(0.0, last - first - 1) * (index // len(files)) / max(1, rounds - 1)
            sample = self._sample(os.path.relpath(file, self.data_root), SILENCE)
            samples.append(sample | dict(start=round(start, 3), duration=1.0))
        return samples


def _hash_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
