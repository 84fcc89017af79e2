"""Classifier of point clouds (§3.3, Eq. 4): projections on three planes as one image, then as of images.

`form='four_views'` of the embedding, `ConcatenateViews` as the neck and four times the head's input channels
are the published code's form (`configs/point_cloud/unireplknet_s_four_views_modelnet40.py`).
"""

_base_ = './classifier.py'

input_shape = (4096, 3)  # points, coordinates
model = dict(
    type='PointCloudClassifier',
    embedding=dict(type='ThreeViewProjection', form='three_planes', size=224, num_neighbours=32),
    backbone=dict(in_channels=3),
)
