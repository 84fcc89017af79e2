"""ESC-50: 512 frames of 128 bins, AST's normalisation and augmentation; fold 1 is tested."""

_base_ = './recordings.py'

data_root = 'data/esc50'
fold = 1
data_preprocessor = dict(num_classes=50, to_onehot=True)
input_shape = (512, 128)  # frames, bins
mean, std = -6.6268077, 5.358466

log_mel = dict(type='LogMel', mean=mean, std=std)
train_pipeline = [
    dict(type='LoadRecording', skip_unusable=True),
    log_mel,
    dict(type='FitFrames', num_frames=512),
    dict(type='MaskFrequencies', largest=24),
    dict(type='MaskFrames', largest=96),
    dict(type='PackRecording'),
]
test_pipeline = [
    dict(type='LoadRecording', silence_unusable=True),
    log_mel,
    dict(type='FitFrames', num_frames=512),
    dict(type='PackRecording'),
]
train_dataloader = dict(
    batch_size=48,
    dataset=dict(
        type='ESC50', data_root=data_root, subset='train', fold=fold, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=48,
    dataset=dict(
        type='ESC50',
        data_root=data_root,
        subset='test',
        fold=fold,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
# tools/test.py --tta: the scores of several parts of a long recording, averaged
tta_pipeline = [
    dict(type='LoadRecording', silence_unusable=True),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='CropSegment', seconds=4.0, position=p) for p in (0.0, 0.5, 1.0)],
            [log_mel],
            [dict(type='FitFrames', num_frames=512)],
            [dict(type='PackRecording')],
        ],
    ),
]
