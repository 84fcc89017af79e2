"""Classifier of spectrograms: (B, T, F) -> (B, 1, T, F) -> UniRepLKNet-S -> one linear layer.

The loss is the binary cross-entropy of every class, summed over the classes; AST takes their mean. Adam's
steps are the same but for weight decay, which it adds to the gradient: 5e-7 beside a sum is as little as
5e-7 / num_classes beside a mean. `axes='freq_time'` of the embedding is the published code's form.
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
