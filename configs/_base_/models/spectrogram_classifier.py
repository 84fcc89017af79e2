"""Classifier of spectrograms: (B, T, F) -> (B, 1, T, F) -> UniRepLKNet-S -> one linear layer.

The loss is the binary cross-entropy of every class, summed over the classes, which Adam does not tell from
their mean. `axes='freq_time'` of the embedding is the published code's form.
"""

_base_ = './classifier.py'

model = dict(
    type='ModalityClassifier',
    embedding=dict(type='SpectrogramMap', axes='time_freq'),
    backbone=dict(arch='s', in_channels=1, drop_path_rate=0.4),
    head=dict(
        num_classes=35,
        in_channels=768,
        loss=dict(_delete_=True, type='CrossEntropyLoss', use_sigmoid=True),
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=10.0)], probs=[0.6]),
)
