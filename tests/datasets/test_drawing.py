"""What is drawn, and that training and validation share no source."""

import numpy as np
import pytest

from unireplknet_mm.datasets import drawing
from unireplknet_mm.datasets.layouts.base import SPLITS


def draw(split: str, index: int, **kwargs) -> drawing.Scene:
    arguments = dict(
        size=(160, 120), digits_per_image=(3, 6), digit_size=(0.2, 0.5), labels=range(10)
    )
    rng = np.random.default_rng([7, SPLITS.index(split), index])
    return drawing.draw_scene(rng, split, **(arguments | kwargs))


def test_all_sources_are_split_and_differ():
    photographs = {split: drawing.load_photographs(split) for split in SPLITS}
    contents = [image.tobytes() for images in photographs.values() for image in images.values()]
    assert len(contents) == len(set(contents)) == 16
    scans = {
        split: [entry for entries in drawing.load_scans(split).values() for entry in entries]
        for split in SPLITS
    }
    indices = {split: {index for index, _ in entries} for split, entries in scans.items()}
    assert indices['train'] | indices['val'] == set(range(1797))
    assert not indices['train'] & indices['val']
    inks = {split: {ink.tobytes() for _, ink in entries} for split, entries in scans.items()}
    assert not inks['train'] & inks['val']
    assert min(len(entries) for entries in drawing.load_scans('val').values()) >= 30


def test_mask_is_what_was_inked():
    for index in range(20):
        scene = draw('train', index)
        # The background is the first thing drawn from the same generator.
        rng = np.random.default_rng([7, 0, index])
        names = drawing.PHOTOGRAPHS['train']
        photograph = drawing.load_photographs('train')[names[rng.integers(len(names))]]
        background = drawing.crop_background(rng, photograph, (160, 120))
        change = np.abs(scene.image.astype(np.float32) - background).max(-1)
        assert not (scene.fringe & (scene.owner >= 0)).any()
        assert change[(scene.owner < 0) & ~scene.fringe].max() <= 0.1 * 255 + 1
        for digit in range(len(scene.labels)):
            assert np.mean(change[scene.owner == digit] >= 25) > 0.75


def test_digits_stand_out_from_what_they_are_drawn_on():
    rng = np.random.default_rng(0)
    for low, high in ((0, 20), (230, 255), (110, 140), (0, 120), (130, 255)):
        pixels = rng.uniform(low, high, (500, 1)).repeat(3, 1)
        for _ in range(20):
            contrast = np.abs(drawing.ink_colour(rng, pixels).mean() - pixels.mean(1))
            assert np.mean(contrast >= 40) >= 0.85


def test_overlap_is_bounded():
    rng = np.random.default_rng(0)
    inked = np.ones((10, 10), bool)
    covered = np.zeros((40, 40), np.int16)  # one digit everywhere: 100 of 1,600 pixels may go
    assert drawing._place(rng, covered, inked, [1600]) is not None
    assert drawing._place(rng, covered, inked, [1700]) is None  # 100 of them were hidden before
    small = np.full((12, 12), -1, np.int16)
    small[:5] = 0
    assert drawing._place(rng, small, inked, [60]) is None


def test_size_and_count_of_digits():
    scenes = [draw('val', i, digits_per_image=(1, 1), digit_size=(0.5, 0.5)) for i in range(10)]
    assert all(len(scene.labels) == 1 for scene in scenes)
    heights = [np.ptp(np.nonzero(scene.owner == 0)[0]) + 1 for scene in scenes]
    assert np.mean(heights) == pytest.approx(0.5 * 120, rel=0.15)
