"""`tools/audio_data.py`: statistics against their definition, and a speed of the sound that was read."""

import importlib
import re
import subprocess
import sys

import pytest
import soundfile
import torch
from helpers import load_config
from tones import tone
from tool_runs import ROOT, TOOLS, environment

from unireplknet_mm.errors import UserError
from unireplknet_mm.modalities.audio.filterbank import log_mel
from unireplknet_mm.modalities.audio.recordings import read_recording
from unireplknet_mm.modalities.audio.statistics import measure_speed

CONFIG = ROOT / 'configs/custom/unireplknet_spoken_digits_folder.py'
BLOCKER = """
import sys
sys.modules['soundfile'] = None
import unireplknet_mm
assert not [name for name in sys.modules if name.startswith(('torchaudio', 'unireplknet_mm.modalities.'))]
from unireplknet_mm.errors import MissingPackageError
try:
    import unireplknet_mm.modalities.audio
except MissingPackageError as error:
    print(error)
"""


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp('digits')
    for i, hertz in enumerate((200, 500, 900)):
        soundfile.write(root / f'{i}_ada_{5 + i}.wav', tone(0.2 + 0.1 * i, hertz, 8000), 8000)
    soundfile.write(root / '0_ada_0.wav', tone(0.5, 3000, 8000), 8000)  # for testing
    return root


def test_statistics_are_those_of_the_training_recordings(digits, call):
    (digits / '0_ada_9.wav').write_bytes(b'damaged')
    text = call(
        *('audio_data', 'statistics', CONFIG, '--cfg-options'),
        f'train_dataloader.dataset.data_root={digits}',
    )
    values = torch.cat(
        [
            log_mel(read_recording(path, 8000), 8000, 48)
            for path in sorted(digits.glob('*_ada_[567].wav'))
        ]
    )
    mean, std = map(float, re.search(r'mean=(\S+), std=(\S+)\)', text).groups())
    assert mean == pytest.approx(values.mean().item(), abs=1e-3)
    assert std == pytest.approx(values.std().item(), abs=1e-2)
    assert '3 recordings, 1 s of sound; 1 that cannot be used left out' in text
    (digits / '0_ada_9.wav').unlink()


def test_speed_counts_the_sound_that_was_read(digits, call):
    text = call(
        *('audio_data', 'speed', CONFIG, '--workers', 0, '--batches', 2, '--cfg-options'),
        f'train_dataloader.dataset.data_root={digits}',
        'train_dataloader.batch_size=3',
    )
    assert re.search(
        r's of sound a second, .*: 2 batches of 3 in \S+ s, 0 workers, \S+ s of CPU time', text
    )

    class Loader(list):
        num_workers, prefetch_factor = 1, 2

    class Sample:
        num_frames = 50

    batch = dict(inputs=[0, 0], data_samples=[Sample(), Sample()])
    with pytest.raises(UserError, match='gives no batch'):
        measure_speed(Loader(), 3)
    found = measure_speed(Loader([batch] * 2), 3)
    assert (found.batches, found.recordings) == (3, 6)
    assert found.audio_seconds == pytest.approx(6 * 0.5) and found.seconds > 0


def test_a_config_of_images_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    tool = importlib.import_module('audio_data')
    arguments = tool.parse_args(['statistics', 'a.py', '--most', '3'])
    assert (arguments.command, arguments.most) == ('statistics', 3)
    cfg = load_config(ROOT / 'configs/cls/unireplknet_t_in1k.py')
    with pytest.raises(UserError, match=r'unireplknet_t_in1k\.py is not of audio'):
        tool.print_statistics(cfg, arguments)


def test_without_the_extra_the_suite_works_and_the_modality_names_it():
    result = subprocess.run(
        [sys.executable, '-c', BLOCKER],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "pip install 'unireplknet-mm[audio]'" in result.stdout
