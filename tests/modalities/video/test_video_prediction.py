"""`tools/predict.py` on videos: the same scores as in testing, and a picture of the grid."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import load_config
from sliding_videos import sliding_frames, write_sliding

from unireplknet_mm.modalities.inputs import find_inputs
from unireplknet_mm.modalities.predictions import ClassPrediction, Labels
from unireplknet_mm.modalities.video import FrameGrid, Videos, draw_clip

CONFIG = Path(__file__).resolve().parents[3] / 'configs' / 'video' / 'unireplknet_s_k400.py'


def clip_of(frames) -> torch.Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


@pytest.mark.parametrize('layout', ['grid', 'reshape'])
def test_the_picture_is_the_grid(layout):
    clip = clip_of(sliding_frames(4, (160, 120)))
    picture = draw_clip(clip, ['walk 0.900', 'run 0.100'], layout)
    grid = FrameGrid(4, layout)(clip[None].float())[0].byte().permute(1, 2, 0).numpy()
    assert picture.shape == (240 + 2 * 20, 320, 3)
    assert np.array_equal(picture[:240], grid[..., ::-1])
    text = picture[240:]
    assert (text == 255).mean() > 0.8 and text.min() < 100
    assert not np.array_equal(text, draw_clip(clip, ['a', 'b'])[240:])


def test_letters_of_other_languages_are_drawn():
    """Each as itself: not as question marks, nor as the box of a letter that the font lacks."""
    clip = clip_of(sliding_frames(4, (160, 120)))
    letters = ['?', '??', '\uffff', 'e', 'é', 'è', 'ß', 'ř', 'ж', 'λ']
    strips = [draw_clip(clip, [letter])[240:].tobytes() for letter in letters]
    assert len(set(strips)) == len(letters)


def test_small_grids_are_enlarged_and_primes_padded():
    clip = clip_of(sliding_frames(7, (20, 16)))
    picture = draw_clip(clip)
    assert picture.shape == (2 * 16 * 4, 4 * 20 * 4, 3)
    assert np.array_equal(picture[:64:4, :80:4], clip[0].permute(1, 2, 0).numpy()[..., ::-1])
    assert (picture[64:, 240:] == 0).all()


def test_of_views_the_middle_one_is_drawn():
    views = torch.stack([clip_of(sliding_frames(4, (160, 120), seed)) for seed in range(3)])
    sample = torch.tensor([0.7, 0.3])
    prediction = ClassPrediction(
        Path('a.mp4'), views, type('Sample', (), dict(pred_score=sample)), Labels(['walk', 'run'])
    )
    # The place that an override changes, and the only one.
    config = load_config(CONFIG)
    config.merge_from_dict({'model.embedding.layout': 'reshape'})
    picture = Videos().draw(prediction, [], config)
    expected = draw_clip(views[1], ['walk 0.700', 'run 0.300'], 'reshape')
    assert np.array_equal(picture, expected)


def test_names_of_classes_may_hold_semicolons():
    clip = clip_of(sliding_frames(4, (160, 120)))
    sample = type('Sample', (), dict(pred_score=torch.tensor([0.7, 0.3])))
    prediction = ClassPrediction(Path('a.mp4'), clip, sample, Labels(['up; then down', 'still']))
    expected = draw_clip(clip, ['up; then down 0.700', 'still 0.300'])
    assert np.array_equal(Videos().draw(prediction, [], load_config(CONFIG)), expected)


def test_folders_of_pictures_are_inputs(tmp_path):
    write_sliding(tmp_path / 'a.mp4', 3)
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / '0.png'), sliding_frames(1)[0])
    (tmp_path / 'notes.txt').write_text('')
    inputs, others = find_inputs([tmp_path], Videos(), recursive=True)
    assert [path.name for path, _ in inputs] == ['a.mp4', 'one', 'two']
    assert [path.name for path in others] == ['notes.txt']
    assert [p for p, _ in find_inputs([tmp_path / 'one'], Videos(), False)[0]] == [tmp_path / 'one']
