"""Classifier with global average pooling and one linear layer, for the networks of Table 2.

A leaf adds the backbone and the head's input channels.
"""

model = dict(
    type='ImageClassifier',
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
