"""UniRepLKNet-S on Speech Commands V2, 35 words, from scratch for 100 epochs (paper, Table 8).

Paper: accuracy 98.5; 55.5 M parameters. Not reproduced here.

    python tools/train.py configs/audio/unireplknet_s_speech_commands.py
"""

_base_ = [
    '../_base_/models/spectrogram_classifier.py',
    '../_base_/datasets/speech_commands.py',
    '../_base_/schedules/audio_100e.py',
    '../_base_/audio_runtime.py',
]
