"""AudioSet: CSV lists with several labels a recording, a list of the labels, and a folder of recordings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.recorded import PlannedRecording, RecordedLayout
from unireplknet_mm.datasets.sounds import draw_sound, write_wav

LABELS = 'class_labels_indices.csv'
LISTS = dict(train='balanced_train_segments.csv', val='eval_segments.csv')
FOLDER = 'audio'
SAMPLE_RATE = 16000
SECONDS = 10.0
MOST_LABELS = 3
HEADER = '# Segments csv\n# num_ytids\n# YTID, start_seconds, end_seconds, positive_labels\n'


class AudioSetLayout(RecordedLayout):
    """One to three sounds at once; whatever `num_classes` is, labels from 49 on are heard as earlier ones."""

    name = 'audioset'
    dataset_types = ('AudioSet',)
    files = (LABELS, *LISTS.values(), f'{FOLDER}/YTID.wav')
    title = 'AudioSet'
    source = 'https://research.google.com/audioset/download.html (lists; the sound is that of the videos)'
    defaults = dict(seed=0, num_classes=527)

    def write_recordings(
        self, root: Path, planned: Iterable[PlannedRecording], parameters: dict[str, Any]
    ) -> None:
        count = parameters['num_classes']
        mids = [f'/m/demo{label:03d}' for label in range(count)]
        rows = [f'{i},{mid},"Sound {i}"\n' for i, mid in enumerate(mids)]
        (root / LABELS).write_text('index,mid,display_name\n' + ''.join(rows), encoding='utf-8')
        (root / FOLDER).mkdir()
        lines: dict[str, list[str]] = {split: [] for split in SPLITS}
        for one in planned:
            number = min(count, 1 + one.rng.integers(MOST_LABELS))
            labels = [(one.index * MOST_LABELS + i) % count for i in range(number)]
            sounds = [draw_sound(one.rng, label, SECONDS, SAMPLE_RATE) for label in labels]
            ytid = f'demo_{SPLITS.index(one.split)}{one.index:05d}'
            write_wav(root / FOLDER / f'{ytid}.wav', np.mean(sounds, 0), SAMPLE_RATE)
            positive = ','.join(mids[label] for label in labels)
            lines[one.split].append(f'{ytid}, 0.000, {SECONDS:.3f}, "{positive}"\n')
        for split, file in LISTS.items():
            (root / file).write_text(HEADER + ''.join(lines[split]), encoding='utf-8')

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(ann_file=LISTS[split], data_prefix=FOLDER)


LAYOUT = AudioSetLayout()
