"""Table 11 of the paper, audio: ConvNeXt-S (7×7 kernels), on Speech Commands V2.

Paper: accuracy 94.3. Not reproduced here.

    python tools/train.py configs/audio/table_11_convnext_s_speech_commands.py
"""

_base_ = ['./unireplknet_s_speech_commands.py', '../_base_/models/table_11.py']

model = dict(backbone=_base_.convnext_s, head=dict(in_channels=768))
