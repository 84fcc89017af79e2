"""UniRepLKNet-S on Speech Commands V2 with 12 classes: ten commands, unknown words, silence.

The recipe of the 35 words. Not trained here; the paper has no figure.

    python tools/train.py configs/audio/unireplknet_s_speech_commands_12.py
"""

_base_ = './unireplknet_s_speech_commands.py'

model = dict(head=dict(num_classes=12))
data_preprocessor = dict(num_classes=12)
train_dataloader = dict(dataset=dict(num_classes=12))
val_dataloader = dict(dataset=dict(num_classes=12))
test_dataloader = dict(dataset=dict(num_classes=12))
