"""ESC-50: a folder of recordings and a CSV file with their folds and classes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unireplknet_mm.datasets.layouts.recorded import PlannedRecording, RecordedLayout
from unireplknet_mm.datasets.sounds import draw_sound, write_wav

LIST = 'meta/esc50.csv'
FOLDER = 'audio'
SAMPLE_RATE = 44100
SECONDS = 5.0
VALIDATION_FOLD = 1


class Esc50Layout(RecordedLayout):
    """Fold 1 is for validation, the four others have the training's recordings in turn."""

    name = 'esc50'
    dataset_types = ('ESC50',)
    files = (LIST, f'{FOLDER}/*.wav')
    title = 'ESC-50'
    source = 'https://github.com/karolpiczak/ESC-50'
    defaults = dict(seed=0, num_classes=50)

    def write_recordings(
        self, root: Path, planned: Iterable[PlannedRecording], parameters: dict[str, Any]
    ) -> None:
        (root / LIST).parent.mkdir()
        (root / FOLDER).mkdir()
        rows = ['filename,fold,target,category,esc10,src_file,take\n']
        for one in planned:
            label = one.index % parameters['num_classes']
            fold = VALIDATION_FOLD if one.split == 'val' else 2 + one.index % 4
            name = f'{fold}-{one.index:06d}-A-{label}.wav'
            sound = draw_sound(one.rng, label, SECONDS, SAMPLE_RATE)
            write_wav(root / FOLDER / name, sound, SAMPLE_RATE)
            rows.append(f'{name},{fold},{label},sound_{label},False,{one.index:06d},A\n')
        (root / LIST).write_text(''.join(rows), encoding='utf-8')

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(subset='train' if split == 'train' else 'test', fold=VALIDATION_FOLD)


LAYOUT = Esc50Layout()
