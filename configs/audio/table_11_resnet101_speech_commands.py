"""Table 11 of the paper, audio: ResNet-101 (3×3 kernels), on Speech Commands V2.

Paper: accuracy 73.6. Not reproduced here.

    python tools/train.py configs/audio/table_11_resnet101_speech_commands.py
"""

_base_ = ['./unireplknet_s_speech_commands.py', '../_base_/models/table_11.py']

model = dict(backbone=_base_.resnet_101, neck=_base_.pooling, head=dict(in_channels=2048))
