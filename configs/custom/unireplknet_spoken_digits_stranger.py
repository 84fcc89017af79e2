"""Spoken digits of a speaker whose voice the training has not heard: one of five, named by SPEAKER.

The recipe of `unireplknet_spoken_digits_folder.py`; docs/audio.md has what was measured.

    SPEAKER=theo python tools/train.py configs/custom/unireplknet_spoken_digits_stranger.py
"""

_base_ = './unireplknet_spoken_digits_folder.py'

stranger = ['{{$SPEAKER:theo}}']

train_dataloader = dict(dataset=dict(without=dict(_delete_=True, speaker=stranger)))
val_dataloader = dict(dataset=dict(only=dict(_delete_=True, speaker=stranger)))
test_dataloader = val_dataloader
