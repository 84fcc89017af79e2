"""Table 11 of the paper, audio: UniRepLKNet-S with 11×11 kernels, on Speech Commands V2.

Paper: accuracy 94.7. Not reproduced here.

    python tools/train.py configs/audio/table_11_unireplknet_s_k11_speech_commands.py
"""

_base_ = ['./unireplknet_s_speech_commands.py', '../_base_/models/table_11.py']

model = dict(backbone=_base_.unireplknet_s_k11)
