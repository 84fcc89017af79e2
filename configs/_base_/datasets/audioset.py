"""AudioSet: 1024 frames of 128 bins, AST's normalisation, balanced sampling and masks.

AST adds no noise and does not roll here, and cuts and pads at the end. Mixup is in the leaves, and what
remains different in docs/audio.md.

All of AudioSet-2M: the balanced and the unbalanced list. Where to get them: docs/audio.md.
"""

_base_ = './recordings.py'

data_root = 'data/audioset'
num_classes = 527
data_preprocessor = dict(num_classes=num_classes, to_onehot=True)
input_shape = (1024, 128)  # frames, bins
mean, std = -4.2677393, 4.5689974

log_mel = dict(type='LogMel', mean=mean, std=std)
train_pipeline = [
    dict(type='LoadRecording', skip_unusable=True),
    log_mel,
    dict(type='FitFrames', num_frames=1024),
    dict(type='MaskFrequencies', largest=48),
    dict(type='MaskFrames', largest=192),
    dict(type='PackRecording', num_classes=num_classes),
]
test_pipeline = [
    dict(type='LoadRecording', silence_unusable=True),
    log_mel,
    dict(type='FitFrames', num_frames=1024),
    dict(type='PackRecording', num_classes=num_classes),
]
train_dataloader = dict(
    batch_size=12,
    sampler=dict(_delete_=True, type='BalancedSampler'),
    dataset=dict(
        type='AudioSet',
        data_root=data_root,
        ann_file=['balanced_train_segments.csv', 'unbalanced_train_segments.csv'],
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=24,
    dataset=dict(
        type='AudioSet',
        data_root=data_root,
        ann_file='eval_segments.csv',
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [dict(type='AveragePrecision'), dict(type='ReplacedRecordings')]
test_evaluator = val_evaluator
# tools/test.py --tta: the scores of several parts of a long recording, averaged
tta_pipeline = [
    dict(type='LoadRecording', silence_unusable=True),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='CropSegment', seconds=10.0, position=p) for p in (0.0, 0.5, 1.0)],
            [log_mel],
            [dict(type='FitFrames', num_frames=1024)],
            [dict(type='PackRecording', num_classes=num_classes)],
        ],
    ),
]
