"""Recordings of every kind, written once."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from tones import RATE, tone


@pytest.fixture(scope='session')
def recordings(tmp_path_factory) -> Path:
    """A folder with a file of each kind."""
    folder = tmp_path_factory.mktemp('recordings')
    stereo = np.stack([tone(rate=48000), np.zeros(48000, np.float32)], 1)
    broken = tone()
    broken[100] = np.nan
    contents = {
        'plain.wav': (tone(), RATE),
        'plain.flac': (tone(), RATE),
        'plain.ogg': (tone(), RATE),
        'stereo.wav': (stereo, 48000),
        'silent.wav': (np.zeros(RATE, np.float32), RATE),
        'click.wav': (tone(0.005), RATE),
        'empty.wav': (np.zeros(0, np.float32), RATE),
    }
    for name, (samples, rate) in contents.items():
        soundfile.write(folder / name, samples, rate)
    soundfile.write(folder / 'nan.wav', broken, RATE, subtype='FLOAT')
    soundfile.write(folder / 'huge.wav', 1e20 * tone() / 0.5, RATE, subtype='FLOAT')
    (folder / 'unknown.wav').write_bytes(b'ID of no codec' * 50)
    return folder
