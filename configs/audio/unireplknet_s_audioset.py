"""UniRepLKNet-S on AudioSet-2M from scratch (paper, Table 8).

Paper: mAP 48.5; 55.5 M parameters. Not reproduced here. No recipe was published: data, augmentation and
optimizer are AST's; the schedule, which AST has for pretrained weights only, is this suite's. So is the
noise: without it the masks are exactly 0, where a fresh stem has gradients a thousand times too large.

    bash tools/dist_train.sh configs/audio/unireplknet_s_audioset.py 8
"""

_base_ = [
    '../_base_/models/spectrogram_classifier.py',
    '../_base_/datasets/audioset.py',
    '../_base_/schedules/audioset_30e.py',
    '../_base_/audio_runtime.py',
]

*train_pipeline, packing = _base_.train_pipeline
train_pipeline = [*train_pipeline, dict(type='RandomSpectrogramNoise', largest=0.1), packing]
model = dict(
    head=dict(type='MultiLabelLinearClsHead', num_classes=527),
    train_cfg=dict(probs=[0.5]),  # mixup
)
default_hooks = dict(checkpoint=dict(save_best='multi-label/mAP'))
train_dataloader = dict(
    batch_size=16,  # of 8 processes
    dataset=dict(pipeline=train_pipeline),
)
