"""Speech Commands V2, 35 words: 128 frames of 128 bins, AST's normalisation and augmentation.

Mixup, of 0.6 of the batches with Beta(10, 10), is in the model's settings. The data: docs/audio.md.
"""

_base_ = './recordings.py'

data_root = 'data/speech_commands'
data_preprocessor = dict(num_classes=35, to_onehot=True)
input_shape = (128, 128)  # frames, bins
mean, std = -6.845978, 5.5654526

log_mel = dict(type='LogMel', mean=mean, std=std)
train_pipeline = [
    dict(type='LoadRecording', skip_unusable=True),
    log_mel,
    dict(type='FitFrames', num_frames=128),
    dict(type='MaskFrequencies', largest=48),
    dict(type='MaskFrames', largest=48),
    dict(type='RandomSpectrogramNoise', largest=0.1),
    dict(type='RandomRoll', largest=10),
    dict(type='PackRecording'),
]
test_pipeline = [
    dict(type='LoadRecording', silence_unusable=True),
    log_mel,
    dict(type='FitFrames', num_frames=128),
    dict(type='PackRecording'),
]
dataset = dict(type='SpeechCommands', data_root=data_root, num_classes=35)
train_dataloader = dict(
    batch_size=128,
    dataset=dict(dataset, subset='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    dataset=dict(dataset, subset='val', pipeline=test_pipeline),
)
test_dataloader = dict(
    batch_size=128,
    dataset=dict(dataset, subset='test', pipeline=test_pipeline),
)
# tools/test.py --tta: the scores of several parts of a long recording, averaged
tta_pipeline = [
    dict(type='LoadRecording', silence_unusable=True),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='CropSegment', seconds=1.0, position=p) for p in (0.0, 0.5, 1.0)],
            [log_mel],
            [dict(type='FitFrames', num_frames=128)],
            [dict(type='PackRecording')],
        ],
    ),
]
