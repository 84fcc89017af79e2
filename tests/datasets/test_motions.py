"""Videos whose classes differ in motion alone: what happens, and that the middle frame does not tell."""

import dataclasses

import numpy as np
import pytest

from unireplknet_mm.datasets.motions import MOTIONS, draw_moving_digit

SIZE = (48, 40)
FRAMES = 16
MIDDLE = FRAMES // 2


def draw(motion: str, index: int = 0, split: str = 'train', **options):
    arguments = dict(size=SIZE, num_frames=FRAMES, digit_size=(0.25, 0.4)) | options
    return draw_moving_digit(np.random.default_rng([7, index]), split, motion, **arguments)


def test_the_middle_frame_is_the_same_in_all_classes():
    """From the same draws, to the last pixel: size, position and angle have one distribution."""
    for index in range(12):
        videos = [draw(motion, index) for motion in MOTIONS]
        assert len({video.frames[MIDDLE].tobytes() for video in videos}) == 1
        assert len({video.placements[MIDDLE] for video in videos}) == 1
        assert len({video.frames[0].tobytes() for video in videos}) == len(MOTIONS)


def test_of_independent_draws_the_middle_frames_do_not_differ_by_class():
    """As the data sets have them: other numbers for every video."""
    middles = {
        motion: np.array(
            [
                dataclasses.astuple(draw(motion, len(MOTIONS) * i + label).placements[MIDDLE])
                for i in range(60)
            ]
        )
        for label, motion in enumerate(MOTIONS)
    }
    everything = np.concatenate(list(middles.values()))
    for motion, values in middles.items():
        error = everything.std(0) / np.sqrt(len(values))
        assert (np.abs(values.mean(0) - everything.mean(0)) < 4 * error).all(), motion
        assert (np.abs(values.std(0) / everything.std(0) - 1) < 0.35).all(), motion


def changes(video) -> np.ndarray:
    """Of x, y, height (as a logarithm) and angle, from frame to frame."""
    values = np.array([[p.x, p.y, np.log(p.height), p.angle] for p in video.placements])
    return np.diff(values, axis=0)


def test_each_class_does_what_its_name_says():
    signs = dict(
        left=(-1, 0, 0, 0),
        right=(1, 0, 0, 0),
        up=(0, -1, 0, 0),
        down=(0, 1, 0, 0),
        growing=(0, 0, 1, 0),
        shrinking=(0, 0, -1, 0),
        still=(0, 0, 0, 0),
    )
    for index in range(6):
        for motion, sign in signs.items():
            assert (np.sign(changes(draw(motion, index)).round(6)) == sign).all(), motion
    turns = [changes(draw('turning', index)) for index in range(20)]
    assert all((turn[:, :3] == 0).all() for turn in turns)
    assert {np.sign(turn[0, 3]) for turn in turns} == {-1, 1}, 'both ways'
    assert all(len(set(np.sign(turn[:, 3]))) == 1 for turn in turns)


@pytest.mark.parametrize(('motion', 'axis'), [('right', 1), ('down', 0)])
def test_the_ink_moves_with_the_placement(motion, axis):
    video = draw(motion)
    still = draw('still').frames[MIDDLE].astype(int)
    background = np.median(np.stack(video.frames), 0)
    centres = []
    for frame in (video.frames[1], video.frames[MIDDLE], video.frames[-1]):
        ink = np.abs(frame - background).sum(-1) > 60
        centres.append(np.argwhere(ink).mean(0)[axis])
    assert centres == sorted(centres)
    moved = [video.placements[i] for i in (1, -1)]
    expected = moved[1].y - moved[0].y if axis == 0 else moved[1].x - moved[0].x
    assert centres[-1] - centres[0] == pytest.approx(expected, abs=3)
    assert np.array_equal(video.frames[MIDDLE], still)


def test_the_background_stands_still():
    video = draw('right')
    corner = [frame[:4, :4] for frame in video.frames]
    assert all(np.array_equal(corner[0], other) for other in corner)


def test_splits_share_no_source():
    drawn = {split: [draw('still', i, split) for i in range(25)] for split in ('train', 'val')}
    for key in ('photograph', 'scan'):
        train, val = ({getattr(video, key) for video in drawn[split]} for split in drawn)
        assert not train & val


@pytest.mark.parametrize('num_frames', [1, 2, 7])
def test_any_number_of_frames(num_frames):
    video = draw('growing', num_frames=num_frames)
    assert len(video.frames) == len(video.placements) == num_frames
    assert video.placements[num_frames // 2] == draw('still').placements[MIDDLE]
