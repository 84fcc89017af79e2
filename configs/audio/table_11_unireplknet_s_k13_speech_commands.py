"""Table 11 of the paper, audio: UniRepLKNet-S with 13×13 kernels on Speech Commands V2, as in Table 8.

Paper: accuracy 98.5. Not reproduced here.

    python tools/train.py configs/audio/table_11_unireplknet_s_k13_speech_commands.py
"""

_base_ = './unireplknet_s_speech_commands.py'

model = dict(backbone=dict(arch='s'))
