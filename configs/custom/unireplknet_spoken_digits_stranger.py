"""Spoken digits of a speaker whose voice the training has not heard: one of five, named by SPEAKER.

The training of `unireplknet_spoken_digits_folder.py`, which varies levels and noise. A stranger's recordings
come from another recorder: they are tested at the usual level, without silence around them, and with a floor
under the spectrum where the noise of other recorders would be. Measured: 80.0 in the mean of the five, 71.3
without these three (docs/audio.md).

    SPEAKER=theo python tools/train.py configs/custom/unireplknet_spoken_digits_stranger.py
"""

_base_ = './unireplknet_spoken_digits_folder.py'

stranger = ['{{$SPEAKER:theo}}']
loading, log_mel, *fitting = _base_.test_pipeline
test_pipeline = [
    loading,
    dict(type='TrimSilence'),
    dict(type='NormalizeLevel', level=-15),
    dict(log_mel, floor=40),
    *fitting,
]

train_dataloader = dict(dataset=dict(without=dict(_delete_=True, speaker=stranger)))
val_dataloader = dict(
    dataset=dict(only=dict(_delete_=True, speaker=stranger), pipeline=test_pipeline)
)
test_dataloader = val_dataloader
