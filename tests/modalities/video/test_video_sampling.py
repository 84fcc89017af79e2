"""Which frames are chosen."""

import numpy as np
import pytest

from unireplknet_mm.errors import ArgumentError
from unireplknet_mm.modalities.video import LoadVideo
from unireplknet_mm.modalities.video.sampling import sample_dense, sample_uniform

LENGTHS = (1, 2, 15, 16, 60, 61, 62, 300)


def test_dense_clips_are_windows():
    (clip,) = sample_dense(300, 16, 4)
    assert clip.tolist() == list(range(119, 180, 4))  # 61 frames in the middle of 300
    clips = sample_dense(300, 16, 4, num_clips=5)
    assert clips.shape == (5, 16) and (np.diff(clips) == 4).all()
    assert clips[0, 0] == 0 and clips[-1, -1] == 299
    assert set(np.diff(clips[:, 0])) <= {59, 60}


def test_random_dense_clips_reach_both_ends():
    np.random.seed(0)
    starts = [int(sample_dense(70, 16, 4, random=True)[0, 0]) for _ in range(300)]
    assert set(starts) == set(range(10))


def test_uniform_frames_are_spread_over_the_video():
    assert sample_uniform(16, 16).tolist() == [list(range(16))]
    assert sample_uniform(32, 16).tolist() == [list(range(1, 32, 2))]
    assert sample_uniform(10, 1).tolist() == [[5]]  # the middle one
    first, second = sample_uniform(32, 8, num_clips=2)
    assert first.tolist() == list(range(1, 32, 4)) and second.tolist() == list(range(3, 32, 4))


def test_random_uniform_frames_stay_in_their_part():
    np.random.seed(0)
    for _ in range(50):
        (clip,) = sample_uniform(64, 16, random=True)
        assert (clip // 4).tolist() == list(range(16))


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize('random', [False, True])
def test_short_videos_repeat_frames(length, random):
    for clips in (
        sample_dense(length, 16, 4, 3, random),
        sample_uniform(length, 16, 3, random),
    ):
        assert clips.shape == (3, 16)
        assert clips.min() >= 0 and clips.max() < length
        assert (np.diff(clips) >= 0).all()
    if length < 61:
        assert sample_dense(length, 16, 4)[0, -1] == length - 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(sampling='all'), "not 'all'"),
        (dict(num_frames=0), 'num_frames must be at least 1, not 0'),
        (dict(stride=0), 'stride must be at least 1'),
        (dict(num_clips=-1), 'num_clips must be at least 1'),
        (dict(backend='decord'), "pyav, torchcodec, not 'decord'"),
    ],
)
def test_values_out_of_range_are_named(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        LoadVideo(**arguments)
