"""Image classifier: UniRepLKNet, global average pooling, LayerNorm, one linear layer.

A leaf adds the architecture, drop path, the head's input channels, and the mixup and cutmix rates.
"""

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='UniRepLKNet',
        out_indices=(3,),
        gap_before_final_norm=True,
        norm_cfg=dict(type='BN'),
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
    ),
)
