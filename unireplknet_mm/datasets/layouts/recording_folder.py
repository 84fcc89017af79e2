"""One's own recordings: a folder a class, in a folder a split."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.recorded import PlannedRecording, RecordedLayout
from unireplknet_mm.datasets.sounds import draw_sound, write_wav

SAMPLE_RATE = 16000
SECONDS = (0.3, 0.9)


def class_folders(num_classes: int) -> list[str]:
    return [f'class_{label:03d}' for label in range(num_classes)]


class RecordingFolderLayout(RecordedLayout):
    """Recordings of different lengths; names of classes, and splits, are not those of the config."""

    name = 'recording_folder'
    dataset_types = ('RecordingFolder',)
    files = ('{train,val}/CLASS/*.wav',)
    defaults = dict(seed=0, num_classes=10)

    def write_recordings(
        self, root: Path, planned: Iterable[PlannedRecording], parameters: dict[str, Any]
    ) -> None:
        folders = class_folders(parameters['num_classes'])
        for split in SPLITS:
            for folder in folders:
                (root / split / folder).mkdir(parents=True)
        for one in planned:
            label = one.index % len(folders)
            sound = draw_sound(one.rng, label, one.rng.uniform(*SECONDS), SAMPLE_RATE)
            write_wav(
                root / one.split / folders[label] / f'{one.index:06d}.wav', sound, SAMPLE_RATE
            )

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        num_classes = parameters.get('num_classes', self.defaults['num_classes'])
        return dict(
            pattern=rf'{split}/(?P<label>[^/]+)/.*',
            classes=class_folders(num_classes),
            only=None,
            without=None,
        )


LAYOUT = RecordingFolderLayout()
