"""An example of one's own recordings: a small classifier of spoken digits, from scratch.

The data are https://github.com/Jakobovski/free-spoken-digit-dataset, of which by its own rule the recordings
with the numbers 0 to 4 are for testing:

    data/spoken_digits/recordings/{digit}_{speaker}_{number}.wav

Measured: accuracy 98.4, the same re-parameterized (docs/audio.md).
`unireplknet_spoken_digits_stranger.py` leaves a speaker out.

    python tools/train.py configs/custom/unireplknet_spoken_digits_folder.py
"""

_base_ = [
    '../_base_/models/spectrogram_classifier.py',
    '../_base_/audio_runtime.py',
]

data_root = 'data/spoken_digits/recordings'
pattern = r'(?P<label>\d)_(?P<speaker>\w+)_(?P<number>\d+)\.wav'
classes = [str(digit) for digit in range(10)]
test_numbers = [0, 1, 2, 3, 4]
sample_rate = 8000
input_shape = (80, 48)  # frames, bins: 0.8 seconds
batch_size = 32
max_epochs = 60

data_preprocessor = dict(num_classes=10, to_onehot=True)
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, depths=(1, 1, 3, 1), channels=(24, 48, 96, 160)),
        layer_scale_init_value=0.1,
        drop_path_rate=0.1,
    ),
    head=dict(
        num_classes=10,
        in_channels=160,
        loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    train_cfg=None,  # no mixup
)

log_mel = dict(type='LogMel', mean=-6.10, std=3.86, num_bins=48)
train_pipeline = [
    dict(type='LoadRecording', sample_rate=sample_rate),
    dict(type='RandomSpeed', ratios=(0.8, 1.25)),
    dict(type='RandomPitch', ratios=(0.75, 1.33), prob=0.3),
    dict(type='RandomFormants', ratios=(0.8, 1.25), prob=0.5),
    dict(type='RandomNoise', decibels=(5, 30), prob=0.5),
    dict(type='RandomGain', decibels=(-15, 10)),
    log_mel,
    dict(type='FitFrames', num_frames=80, position='random'),
    dict(type='MaskFrequencies', largest=8, count=2),
    dict(type='MaskFrames', largest=12, count=2),
    dict(type='RandomSpectrogramNoise', largest=0.1),
    dict(type='PackRecording'),
]
test_pipeline = [
    dict(type='LoadRecording', sample_rate=sample_rate),
    log_mel,
    dict(type='FitFrames', num_frames=80, position='center'),
    dict(type='PackRecording'),
]
dataset = dict(type='RecordingFolder', data_root=data_root, classes=classes, pattern=pattern)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(dataset, without=dict(number=test_numbers), pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=batch_size,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(dataset, only=dict(number=test_numbers), pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=max_epochs, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=4)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
auto_scale_lr = dict(base_batch_size=batch_size)
