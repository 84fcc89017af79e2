"""Speech Commands V2: a folder a word, lists of the recordings that are held out, background recordings."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unireplknet_mm.datasets.layouts.base import SPLITS
from unireplknet_mm.datasets.layouts.recorded import PlannedRecording, RecordedLayout
from unireplknet_mm.datasets.sounds import draw_noise, draw_sound, write_wav

# fmt: off
WORDS = (
    'backward', 'bed', 'bird', 'cat', 'dog', 'down', 'eight', 'five', 'follow', 'forward', 'four', 'go',
    'happy', 'house', 'learn', 'left', 'marvin', 'nine', 'no', 'off', 'on', 'one', 'right', 'seven', 'sheila',
    'six', 'stop', 'three', 'tree', 'two', 'up', 'visual', 'wow', 'yes', 'zero',
)
COMMANDS = ('yes', 'no', 'up', 'down', 'left', 'right', 'on', 'off', 'stop', 'go')
# fmt: on
SILENCE, UNKNOWN = '_silence_', '_unknown_'
BACKGROUND = '_background_noise_'
LISTS = dict(val='validation_list.txt', test='testing_list.txt')
SAMPLE_RATE = 16000
BACKGROUND_SECONDS = 30.0  # a tenth of it is more than the second that a recording of silence takes


class SpeechCommandsLayout(RecordedLayout):
    """Commands and other words in turn, so that the form with twelve classes has both.

    The recordings for validation are those for testing as well.
    """

    name = 'speech_commands'
    dataset_types = ('SpeechCommands',)
    files = ('WORD/*.wav', *LISTS.values(), f'{BACKGROUND}/*.wav')
    title = 'Speech Commands V2'
    source = 'http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz'
    defaults = dict(seed=0)

    def write_recordings(
        self, root: Path, planned: Iterable[PlannedRecording], parameters: dict[str, Any]
    ) -> None:
        others = [word for word in WORDS if word not in COMMANDS]
        words = [word for pair in zip(COMMANDS, others, strict=False) for word in pair]
        words += others[len(COMMANDS) :]
        for folder in (*WORDS, BACKGROUND):
            (root / folder).mkdir()
        names: dict[str, list[str]] = {split: [] for split in SPLITS}
        for one in planned:
            word = words[one.index % len(words)]
            name = f'{word}/{SPLITS.index(one.split)}{one.index:07x}_nohash_0.wav'
            sound = draw_sound(one.rng, WORDS.index(word), 1.0, SAMPLE_RATE)
            write_wav(root / name, sound, SAMPLE_RATE)
            names[one.split].append(f'{name}\n')
        background = draw_noise(one.rng, BACKGROUND_SECONDS, SAMPLE_RATE)
        write_wav(root / BACKGROUND / 'white_noise.wav', background, SAMPLE_RATE)
        for file in LISTS.values():
            (root / file).write_text(''.join(names['val']), encoding='utf-8')

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(subset=split)


LAYOUT = SpeechCommandsLayout()
