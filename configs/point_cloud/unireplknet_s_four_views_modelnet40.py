"""UniRepLKNet-S on ModelNet-40 in the form of the published code: four views, features side by side.

The paper describes three projections; the code that it publishes has this. Not trained here.

    python tools/train.py configs/point_cloud/unireplknet_s_four_views_modelnet40.py
"""

_base_ = './unireplknet_s_modelnet40.py'

model = dict(
    embedding=dict(form='four_views', splat='box'),
    neck=dict(type='ConcatenateViews', num_views=4),
    head=dict(in_channels=4 * 768),
)
