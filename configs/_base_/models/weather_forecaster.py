"""UniRepLKNet in front of Corrformer's decoder (§4.2, Table 12), 48 hours in, 24 out.

A leaf adds the tree and the number of stations. Sizes are those of the released scripts: d_model 768
(48·768 = 192²), 16 heads, d_ff 2048, moving average 25, dropout 0.05; drop path 0.4.
"""

model = dict(
    type='WeatherForecaster',
    look_back=48,
    horizon=24,
    label=24,
    channels=768,
    heads=16,
    feed_forward=2048,
    decomposition=25,
    dropout=0.05,
    backbone=dict(
        type='UniRepLKNet',
        arch='s',
        in_channels=1,
        out_indices=(3,),
        drop_path_rate=0.4,
        norm_cfg=dict(type='BN'),
        with_cp=True,
    ),
)
custom_hooks = [dict(type='StationPlacesHook')]
