"""UniRepLKNet-S on Speech Commands V2, 35 words, from ImageNet-1K weights.

The stem's three input channels are summed to one. The recipe of the training from scratch. Not trained here;
the paper has no figure.

    python tools/train.py configs/audio/unireplknet_s_in1k_speech_commands.py
"""

_base_ = './unireplknet_s_speech_commands.py'

init_cfg = dict(type='Pretrained', checkpoint='unireplknet_s_in1k', sum_input_channels=True)
model = dict(backbone=dict(init_cfg=init_cfg))
