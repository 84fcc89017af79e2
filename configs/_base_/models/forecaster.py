"""Forecaster: instance normalisation, embedding (Eq. 2), a small UniRepLKNet, one linear layer.

Each variable is a map of its own. A leaf adds look_back, horizon and the number of variables.
"""

model = dict(
    type='Forecaster',
    embedding=dict(type='SeriesMap', channels=6, calendar=False, position=None, dropout=0.1),
    backbone=dict(
        type='UniRepLKNet',
        arch=dict(depths=(1, 1, 2, 1), channels=(16, 32, 64, 128)),
        in_channels=1,
        out_indices=(3,),
        drop_path_rate=0.1,
        norm_cfg=dict(type='BN'),
    ),
    normalization='mean_std',
    dropout=0.2,
)
