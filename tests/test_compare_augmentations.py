"""`scripts/compare_augmentations.py`: what is trained, what is kept, and the table of it."""

import json
import sys

import numpy as np
import pytest
import soundfile
from tones import tone

from scripts import compare_augmentations as script
from scripts.compare_augmentations import SPEAKERS, VARIANTS, configure, table
from unireplknet_mm.configuration import type_name


def steps(variant: str) -> list[str]:
    cfg = configure((variant, 'theo', 0, 10), 'recordings')
    return [type_name(step) for step in cfg.train_dataloader.dataset.pipeline]


def test_a_variant_differs_by_its_own_steps():
    whole = steps('all')
    left_out = {
        variant: [name for name in whole if name not in steps(variant)] for variant in VARIANTS
    }
    assert left_out.pop('none of the six') == [
        *('RandomSpeed', 'RandomPitch', 'RandomFormants', 'RandomNoise', 'RandomGain'),
        *('MaskFrequencies', 'MaskFrames'),
    ]
    assert left_out.pop('without masks') == ['MaskFrequencies', 'MaskFrames']
    named = {variant: names for variant, names in left_out.items() if names}
    assert named == {
        f'without {name}': [f'Random{name.capitalize()}']
        for name in ('speed', 'pitch', 'formants', 'noise', 'gain')
    }
    assert [name for name in steps('with RandomFilter') if name not in whole] == ['RandomFilter']
    mixed = configure(('with mixup', 'theo', 0, 10), 'recordings')
    assert mixed.model.train_cfg.augments[0].type == 'Mixup' and steps('with mixup') == whole


def test_a_stranger_is_not_heard():
    cfg = configure(('all', 'theo', 3, 10), 'recordings')
    assert cfg.train_dataloader.dataset.without == dict(speaker=['theo'])
    assert cfg.test_dataloader.dataset.only == dict(speaker=['theo'])
    assert 'only' not in cfg.train_dataloader.dataset
    assert 'without' not in cfg.test_dataloader.dataset


def test_differences_are_of_strangers_and_seeds_that_both_have():
    accuracies = {
        ('all', 'a', 0, 10): 50.0,
        ('all', 'a', 1, 10): 60.0,
        ('all', 'c', 0, 10): 70.0,
        ('all', 'd', 0, 10): 10.0,
        ('all', 'a', 0, 20): 99.0,
        ('without gain', 'a', 0, 10): 51.0,
        ('without gain', 'a', 1, 10): 63.0,  # the mean of the stranger: +2
        ('without gain', 'c', 0, 10): 74.0,  # +4
        ('without gain', 'a', 0, 20): 0.0,
        ('with mixup', 'c', 0, 10): 69.0,
        ('with mixup', 'x', 0, 10): 1.0,
    }
    assert table(accuracies, 10)[2:] == [
        '| all | 4 | 47.5 | | |',
        '| without gain | 3 | 62.7 | +3.0 | 1.0 |',
        '| with mixup | 1 | 69.0 | -1.0 | nan |',
    ]


@pytest.fixture
def recordings(tmp_path):
    """Two digits of each speaker."""
    for number, speaker in enumerate(SPEAKERS):
        for digit in (0, 7):
            waveform = tone(0.3, 200 + 40 * number + 30 * digit, 8000).astype(np.float32)
            soundfile.write(tmp_path / f'{digit}_{speaker}_0.wav', waveform, 8000)
    return tmp_path


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['compare_augmentations.py', *map(str, arguments)])
    script.main()


def test_what_was_trained_is_not_trained_again(recordings, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'runs.jsonl'
    arguments = ['--data-root', recordings, '--out', out, '--epochs', '1', '--strangers', 'theo']
    variants = ['--variants', 'all', 'with RandomFilter', 'with mixup']
    call(monkeypatch, *arguments, *variants, '--most', '2')
    first = out.read_text()
    assert [json.loads(line)['variant'] for line in first.splitlines()] == [
        'all',
        'with RandomFilter',
    ]
    call(monkeypatch, *arguments, *variants)
    assert out.read_text().startswith(first)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line['variant'] for line in lines] == ['all', 'with RandomFilter', 'with mixup']
    assert all(0 <= line['accuracy'] <= 100 for line in lines)
    assert capsys.readouterr().out.splitlines()[-1].startswith('| with mixup | 1 | ')
    monkeypatch.setattr(script, 'train_and_test', None)
    call(monkeypatch, *arguments, *variants)
